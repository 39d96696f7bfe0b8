//go:build linux

package dbg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
)

// socketName is the agent's socket in its run directory.
const socketName = "agent.sock"

// answerTime bounds how long the agent may take for an answer that ends.
const answerTime = 10 * time.Second

// errUnreachable means that no agent answers.
//
//lint:ignore ST1005 it is a line of its own, in cilium-dbg's words
var errUnreachable = errors.New("Is the agent running?")

func (p *program) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.config.RunDir, socketName))
}

// unreachable says in one line what failed, and asks whether the agent runs
// where nobody listens.
func unreachable(err error) error {
	var failure *api.Error
	if errors.As(err, &failure) {
		return err
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w\n%w", err, errUnreachable)
	}
	return err
}

// get opens the body of a GET that is no operation of the API.
func (p *program) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
	}}
	target := url.URL{Scheme: "http", Host: "agent", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, unreachable(err)
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // only to say more
		answer.Body.Close()
		return nil, fmt.Errorf("the agent answers %s with %s: %s", path, answer.Status, strings.TrimSpace(string(text)))
	}
	return answer.Body, nil
}

// sample is one number of the agent's metrics.
type sample struct {
	Metric string            `json:"metric"`
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

func (p *program) metricsList() *cobra.Command {
	var pattern string
	cmd := p.list("The agent's own metrics\nSorted by name and labels.", func(ctx context.Context) error {
		wanted, err := regexp.Compile(pattern)
		if err != nil {
			return usageError{fmt.Errorf("the pattern %q: %w", pattern, err)}
		}
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		body, err := p.get(ctx, api.MetricsPath, nil)
		if err != nil {
			return fmt.Errorf("cannot get metrics list: %w", err)
		}
		defer body.Close()
		samples, err := parseMetrics(body)
		if err != nil {
			return err
		}
		samples = slices.DeleteFunc(samples, func(s sample) bool { return !wanted.MatchString(s.Metric) })
		return p.show(samples, func(w io.Writer) {
			table(w, func(w io.Writer) {
				fmt.Fprint(w, "Metric\tLabels\tValue\n")
				for _, s := range samples {
					fmt.Fprintf(w, "%s\t%s\t%f\n", s.Metric, labelText(s.Labels), s.Value)
				}
			})
		})
	})
	cmd.Flags().StringVarP(&pattern, "match-pattern", "p", "", "only metrics whose name this regular expression matches")
	return cmd
}

func labelText(labels map[string]string) string {
	words := make([]string, 0, len(labels))
	for name, value := range labels {
		words = append(words, fmt.Sprintf("%s=%q", name, value))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func sortSamples(samples []sample) {
	slices.SortStableFunc(samples, func(a, b sample) int {
		return cmp.Or(cmp.Compare(a.Metric, b.Metric), cmp.Compare(labelText(a.Labels), labelText(b.Labels)))
	})
}
