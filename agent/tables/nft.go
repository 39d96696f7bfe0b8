//go:build linux

package tables

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// nftDump is what `nft -j list ruleset` prints (libnftables-json(5)), as far as
// it is of use.
type nftDump struct {
	Objects []struct {
		Chain *struct {
			Family, Table, Name, Type, Hook, Policy string
			Prio                                    int
		}
		Rule *struct {
			Family, Table, Chain string
			Handle               uint64
			Expr                 []map[string]json.RawMessage
		}
	} `json:"nftables"`
}

// parseNFT keeps the chains of IPv4: the families ip and inet.
func parseNFT(out []byte) ([]api.Chain, error) {
	var dump nftDump
	if err := json.Unmarshal(out, &dump); err != nil {
		return nil, fmt.Errorf("read nft's answer: %w", err)
	}
	var chains []api.Chain
	for _, o := range dump.Objects {
		if c := o.Chain; c != nil && (c.Family == "ip" || c.Family == "inet") {
			chains = append(chains, api.Chain{Family: c.Family, Tool: "nft", Table: c.Table, Name: c.Name,
				Hook: c.Hook, Type: c.Type, Priority: c.Prio, Policy: c.Policy})
		}
		if r := o.Rule; r != nil {
			for i := range chains {
				if c := &chains[i]; c.Family == r.Family && c.Table == r.Table && c.Name == r.Chain {
					c.Rules = append(c.Rules, nftRule(r.Handle, r.Expr))
				}
			}
		}
	}
	return chains, nil
}

func nftRule(handle uint64, expressions []map[string]json.RawMessage) api.FilterRule {
	rule := api.FilterRule{Handle: handle}
	var text []string
	for _, e := range expressions {
		for kind, raw := range e {
			words := takeExpression(&rule, kind, raw)
			if words != "" {
				text = append(text, words)
			}
		}
	}
	rule.Text = strings.Join(text, " ")
	return rule
}

// takeExpression adds one expression to the rule, and returns it as nft would print it.
func takeExpression(rule *api.FilterRule, kind string, raw json.RawMessage) string {
	switch kind {
	case "accept", "drop", "return":
		rule.Verdict = kind
		return kind
	case "reject":
		rule.Verdict = kind
		return kind
	case "masquerade":
		rule.Verdict = kind
		return kind
	case "snat", "dnat":
		var to struct{ Addr, Port any }
		_ = json.Unmarshal(raw, &to) // an address from a map is none that we follow
		rule.Verdict = kind
		rule.Target, _ = to.Addr.(string)
		if port, ok := to.Port.(float64); ok && rule.Target != "" {
			rule.Target += ":" + strconv.Itoa(int(port))
		}
		return kind + " to " + rule.Target
	case "jump", "goto":
		var to struct{ Target string }
		_ = json.Unmarshal(raw, &to)
		rule.Verdict, rule.Target = kind, to.Target
		return kind + " " + to.Target
	case "counter", "log", "notrack", "xt comment":
		return kind
	case "match":
		matches, text := nftMatch(raw)
		rule.Matches = append(rule.Matches, matches...)
		return text
	}
	rule.Matches = append(rule.Matches, api.Match{Key: "other", Values: []string{kind}})
	return kind
}

// nftKeys are what the left side of a comparison may look at, as
// libnftables-json names it.
var nftKeys = map[string]string{
	"ip saddr": "source", "ip daddr": "destination", "ip protocol": "protocol", "tcp sport": "sport", "tcp dport": "dport",
	"udp sport": "sport", "udp dport": "dport", "th sport": "sport", "th dport": "dport", "icmp type": "icmp-type",
	"meta iifname": "in", "meta oifname": "out", "meta iif": "in", "meta oif": "out", "meta l4proto": "protocol", "meta mark": "mark",
	"ct state": "state",
}

// nftMatch is one comparison, and the protocol that it supposes: nft does not
// print that where a port says it.
func nftMatch(raw json.RawMessage) ([]api.Match, string) {
	var m struct {
		Op    string
		Left  map[string]json.RawMessage
		Right json.RawMessage
	}
	if json.Unmarshal(raw, &m) != nil {
		return []api.Match{{Key: "other", Values: []string{"match"}}}, "match"
	}
	left := nftLeft(m.Left)
	values, ok := nftValues(m.Right)
	text := strings.TrimPrefix(left, "meta ") + " " + strings.Join(values, ",")
	if m.Op == "!=" {
		text = strings.TrimPrefix(left, "meta ") + " != " + strings.Join(values, ",")
	}
	key := nftKeys[left]
	if key == "" || !ok || (m.Op != "==" && m.Op != "!=" && m.Op != "in") {
		return []api.Match{{Key: "other", Values: []string{text}}}, text
	}
	matches := []api.Match{{Key: key, Not: m.Op == "!=", Values: values}}
	if protocol, _, _ := strings.Cut(left, " "); protocol == "tcp" || protocol == "udp" || protocol == "icmp" {
		matches = append(matches, api.Match{Key: "protocol", Values: []string{protocol}})
	}
	return matches, text
}

// nftLeft is the left side in nft's own words: ip saddr, meta iifname, ct state.
func nftLeft(left map[string]json.RawMessage) string {
	for kind, raw := range left {
		var what struct{ Protocol, Field, Key string }
		if json.Unmarshal(raw, &what) != nil {
			return kind
		}
		switch kind {
		case "payload":
			return what.Protocol + " " + what.Field
		case "meta", "ct":
			return kind + " " + what.Key
		}
		return kind
	}
	return ""
}

// nftValues are the alternatives of a right side: one value, a prefix, a range,
// or a set of these.
func nftValues(raw json.RawMessage) ([]string, bool) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		var values []string
		for _, one := range list {
			more, ok := nftValues(one)
			if !ok {
				return values, false
			}
			values = append(values, more...)
		}
		return values, true
	}
	var object struct {
		Prefix *struct {
			Addr string
			Len  int
		}
		Range []any
		Set   json.RawMessage
	}
	if json.Unmarshal(raw, &object) == nil {
		switch {
		case object.Prefix != nil:
			return []string{fmt.Sprintf("%s/%d", object.Prefix.Addr, object.Prefix.Len)}, true
		case len(object.Range) == 2:
			return []string{fmt.Sprintf("%v-%v", object.Range[0], object.Range[1])}, true
		case object.Set != nil:
			return nftValues(object.Set)
		}
		return nil, false
	}
	var one any
	if json.Unmarshal(raw, &one) != nil {
		return nil, false
	}
	text := fmt.Sprint(one)
	if number, ok := one.(float64); ok {
		text = strconv.FormatFloat(number, 'f', -1, 64)
	}
	return []string{text}, !strings.HasPrefix(text, "@") // a named set is not read
}
