//go:build web

package main

import (
	"net"
	"net/http"
)

// Left out of most builds: net/http is most of the time that building takes.
func init() {
	ways["http"] = func(o options, r *result) {
		answer, err := http.Get("http://" + net.JoinHostPort(o.name, o.port) + "/")
		if err == nil {
			defer answer.Body.Close()
		}
		r.note(nil, err)
	}
}
