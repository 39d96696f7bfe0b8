package metrics

import (
	"net/http"
	"sync"
)

// Registry knows whom to ask. Its methods are safe for concurrent use.
type Registry struct {
	report func(error)

	mu      sync.Mutex
	sources []func(*Writer)
}

// NewRegistry returns one that knows of nobody. Samples that cannot be written,
// such as one that is written twice, are left out and told to report.
func NewRegistry(report func(error)) *Registry { return &Registry{report: report} }

// Register lets source be asked at each scrape, after those before it. It may
// be asked from several goroutines at once.
func (r *Registry) Register(source func(*Writer)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources = append(r.sources, source)
}

// ServeHTTP answers a scrape.
func (r *Registry) ServeHTTP(response http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	sources := r.sources
	r.mu.Unlock()
	w := new(Writer)
	for _, source := range sources {
		source(w)
	}
	for _, err := range w.errors {
		r.report(err)
	}
	response.Header().Set("Content-Type", ContentType)
	_ = w.writeTo(response) // the reader has gone: it asks again
}
