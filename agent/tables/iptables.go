//go:build linux

package tables

import (
	"bufio"
	"bytes"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// hooksOf are the built-in chains of iptables, and the hooks that they hang on.
var hooksOf = map[string]string{
	"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting",
}

// priorityOf is where iptables' tables stand at each hook
// (linux/netfilter_ipv4.h, enum nf_ip_hook_priorities).
func priorityOf(table, hook string) int {
	switch table {
	case "raw":
		return -300
	case "mangle":
		return -150
	case "nat":
		if hook == "prerouting" || hook == "output" {
			return -100
		}
		return 100
	case "security":
		return 50
	}
	return 0
}

// parseIPTables reads what iptables-save(8) prints.
func parseIPTables(saved []byte, tool string) ([]api.Chain, error) {
	var chains []api.Chain
	table := ""
	lines := bufio.NewScanner(bytes.NewReader(saved))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"):
			fields := strings.Fields(line[1:])
			c := api.Chain{Family: "ip", Tool: tool, Table: table, Name: fields[0], Hook: hooksOf[fields[0]]}
			if c.Hook != "" && len(fields) > 1 {
				c.Priority, c.Policy, c.Type = priorityOf(table, c.Hook), strings.ToLower(fields[1]), typeOf(table)
			}
			chains = append(chains, c)
		case strings.HasPrefix(line, "-A "):
			words := shellWords(line)
			for i := range chains {
				if c := &chains[i]; len(words) > 1 && c.Table == table && c.Name == words[1] {
					c.Rules = append(c.Rules, iptablesRule(words[2:], strings.TrimPrefix(line, "-A "+words[1]+" ")))
				}
			}
		}
	}
	return chains, lines.Err()
}

func typeOf(table string) string {
	if table == "nat" {
		return "nat"
	}
	return "filter"
}

// shellWords splits a line at blanks outside of double quotes.
func shellWords(line string) []string {
	var words []string
	quoted := false
	for _, part := range strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	}) {
		words = append(words, strings.Trim(part, `"`))
	}
	return words
}

// iptablesKeys are the options of a match that say one thing each.
var iptablesKeys = map[string]string{
	"-s": "source", "-d": "destination", "-i": "in", "-o": "out", "-p": "protocol", "--sport": "sport", "--dport": "dport",
	"--sports": "sport", "--dports": "dport", "--icmp-type": "icmp-type", "--ctstate": "state", "--state": "state", "--mark": "mark",
}

// iptablesVerdicts are the targets that end a rule for a packet.
var iptablesVerdicts = map[string]string{
	"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "MASQUERADE": "masquerade", "SNAT": "snat", "DNAT": "dnat",
	"LOG": "", "NFLOG": "", "CT": "", "TRACE": "",
}

// iptablesIgnored are options that change nothing in what a rule matches or
// does, with how many words follow each.
var iptablesIgnored = map[string]int{
	"-m": 1, "--comment": 1, "--reject-with": 1, "--log-prefix": 1, "--log-level": 1, "--random": 0, "--random-fully": 0, "--persistent": 0,
	"-c": 2,
}

func iptablesRule(words []string, text string) api.FilterRule {
	rule := api.FilterRule{Text: text}
	not := false
	for i := 0; i < len(words); i++ {
		word, value := words[i], ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		if skip, ok := iptablesIgnored[word]; ok {
			i += skip
			continue
		}
		switch key := iptablesKeys[word]; {
		case word == "!":
			not = true
			continue
		case word == "-j" || word == "-g":
			target(&rule, word, value)
			i++
		case word == "--to-source" || word == "--to-destination":
			rule.Target = value
			i++
		case key != "":
			rule.Matches = append(rule.Matches, iptablesMatch(key, value, not))
			i++
		default:
			rule.Matches = append(rule.Matches, api.Match{Key: "other", Values: []string{word}})
		}
		not = false
	}
	return rule
}

func target(rule *api.FilterRule, word, name string) {
	verdict, known := iptablesVerdicts[name]
	switch {
	case known:
		rule.Verdict = verdict
	case word == "-g":
		rule.Verdict, rule.Target = "goto", name
	default:
		rule.Verdict, rule.Target = "jump", name
	}
}

func iptablesMatch(key, value string, not bool) api.Match {
	m := api.Match{Key: key, Not: not, Values: strings.Split(value, ",")}
	for i, v := range m.Values {
		switch {
		case key == "state":
			v = strings.ToLower(v)
		case key == "in" || key == "out":
			v = strings.Replace(v, "+", "*", 1)
		case strings.HasSuffix(key, "port"):
			v = strings.Replace(v, ":", "-", 1)
		case key == "icmp-type":
			v = icmpTypeName(v)
		}
		m.Values[i] = v
	}
	if key == "protocol" && slices.Contains(m.Values, "all") {
		m.Values = nil // nothing is asked
	}
	return m
}

// icmpTypeName is nft's word for an ICMP type that iptables gives by its number.
func icmpTypeName(number string) string {
	switch number {
	case "8":
		return "echo-request"
	case "0":
		return "echo-reply"
	}
	return number
}
