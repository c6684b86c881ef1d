// A Go program that looks names up in one of many ways once it is told to: the target of the Go tests.
//
// Owns: the options, the ready and go files, one JSON line about what came of it.
// Must not know: faults, the agent.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
)

const (
	goPoll         = 2 * time.Millisecond
	resolvConfPath = "/etc/resolv.conf"
)

// result is what the program itself has got to know.
type result struct {
	Name      string   `json:"name"`
	OK        bool     `json:"ok"` // all of them
	Lookups   int      `json:"lookups"`
	Succeeded int      `json:"succeeded"`
	Addresses []string `json:"addresses"`
	Error     string   `json:"error,omitempty"`
	IsTimeout bool     `json:"is_timeout"`
	LookupMS  float64  `json:"lookup_ms"`
	Go        string   `json:"go"`
}

// options are the words of the command line.
type options struct {
	name, way, resolver, replace, readyFile, goFile string
	goroutines, lookups, asked, nofile, depth       int
	busy, within                                    time.Duration
	port                                            string
}

func parse() options {
	var o options
	flag.StringVar(&o.name, "name", "", "the name to look up")
	flag.StringVar(&o.way, "way", "ip", "how: see ways.go")
	flag.StringVar(&o.resolver, "resolver", "", "of the way custom: ask this server, address:port")
	flag.StringVar(&o.port, "connect", "443", "of the ways dial and http: the port")
	flag.StringVar(&o.replace, "replace", "", "look up once before, then write this to /etc/resolv.conf")
	flag.StringVar(&o.readyFile, "ready-file", "", "create it when ready")
	flag.StringVar(&o.goFile, "go-file", "", "wait until it exists")
	flag.IntVar(&o.goroutines, "goroutines", 1, "that look up at once")
	flag.IntVar(&o.lookups, "lookups", 1, "in all, of the ways many and turns")
	flag.IntVar(&o.asked, "asked", 0, "of the way many: every so-manieth asks the servers")
	flag.IntVar(&o.depth, "depth", 0, "of the way many: up to so many frames below each lookup")
	flag.IntVar(&o.nofile, "nofile", 0, "set both limits of file descriptors to this")
	flag.DurationVar(&o.busy, "busy", 0, "of the way busy: keep the processor for so long")
	flag.DurationVar(&o.within, "within", 0, "a deadline for each lookup")
	flag.Parse()
	return o
}

func main() {
	o := parse()
	way, known := ways[o.way]
	if !known {
		fmt.Fprintf(os.Stderr, "no such way: %s\n", o.way)
		os.Exit(2)
	}
	if o.nofile > 0 {
		must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(o.nofile), Max: uint64(o.nofile)}))
	}
	if o.readyFile != "" {
		must(os.WriteFile(o.readyFile, nil, 0o644))
	}
	for o.goFile != "" {
		if _, err := os.Stat(o.goFile); err == nil {
			break
		}
		time.Sleep(goPoll)
	}
	if o.replace != "" {
		_, _ = net.LookupHost(o.name)
		must(os.WriteFile(resolvConfPath+".new", []byte(o.replace), 0o644))
		must(os.Rename(resolvConfPath+".new", resolvConfPath))
	}
	r := result{Name: o.name, Go: runtime.Version()}
	started := time.Now()
	way(o, &r)
	r.LookupMS = float64(time.Since(started).Microseconds()) / 1000
	r.OK = r.Succeeded == r.Lookups
	must(json.NewEncoder(os.Stdout).Encode(r))
}

// note counts one lookup.
func (r *result) note(addresses []string, err error) {
	r.Lookups++
	if err == nil {
		r.Succeeded++
		r.Addresses = append(r.Addresses, addresses...)
		return
	}
	r.Error = err.Error()
	var dns *net.DNSError
	r.IsTimeout = errors.As(err, &dns) && dns.IsTimeout
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
