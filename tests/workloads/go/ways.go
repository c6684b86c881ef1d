package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const inHostsFile = "localhost"

// ways are the ways to look up, by the word of the command line.
var ways = map[string]func(options, *result){
	"ip":     one(lookupIP),
	"host":   one(lookupHost),
	"txt":    one(lookupTXT),
	"cname":  one(lookupCNAME),
	"mx":     one(lookupMX),
	"ns":     one(lookupNS),
	"srv":    one(lookupSRV),
	"addr":   one(lookupAddr),
	"custom": custom,
	"dial":   dial,
	"same":   same,
	"names":  names,
	"turns":  turns,
	"grpc":   grpc,
	"many":   many,
	"busy":   busy,
	"loop":   loop,
}

type lookup = func(context.Context, *net.Resolver, string) ([]string, error)

func lookupIP(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	found, err := r.LookupIPAddr(ctx, name)
	texts := make([]string, 0, len(found))
	for _, address := range found {
		texts = append(texts, address.String())
	}
	return texts, err
}

func lookupHost(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	return r.LookupHost(ctx, name)
}

func lookupTXT(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	return r.LookupTXT(ctx, name)
}

func lookupCNAME(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	cname, err := r.LookupCNAME(ctx, name)
	return []string{cname}, err
}

func lookupMX(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	_, err := r.LookupMX(ctx, name)
	return nil, err
}

func lookupNS(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	_, err := r.LookupNS(ctx, name)
	return nil, err
}

func lookupSRV(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	_, _, err := r.LookupSRV(ctx, "xmpp-server", "tcp", name)
	return nil, err
}

func lookupAddr(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	return r.LookupAddr(ctx, name)
}

// deadline is the context of one lookup; without a deadline it cannot be cancelled at all.
func deadline(o options) (context.Context, context.CancelFunc) {
	if o.within > 0 {
		return context.WithTimeout(context.Background(), o.within)
	}
	return context.Background(), func() {}
}

// one lookup, with the resolver that programs have unless they make one.
func one(look lookup) func(options, *result) {
	return func(o options, r *result) {
		ctx, cancel := deadline(o)
		defer cancel()
		r.note(look(ctx, net.DefaultResolver, o.name))
	}
}

// custom has a resolver that asks another server than resolv.conf's: the usual cure.
func custom(o options, r *result) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, o.resolver)
	}}
	ctx, cancel := deadline(o)
	defer cancel()
	r.note(lookupIP(ctx, resolver, o.name))
}

// dial connects to the name without any deadline, as programs do.
func dial(o options, r *result) {
	var dialer net.Dialer
	ctx, cancel := deadline(o)
	defer cancel()
	stream, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(o.name, o.port))
	if err == nil {
		defer stream.Close()
	}
	r.note(nil, err)
}

// atOnce runs it for 0 … count-1, each on a goroutine of its own, and waits for all.
func atOnce(count int, r *result, each func(int) ([]string, error)) {
	var waiting sync.WaitGroup
	var guard sync.Mutex
	for i := 0; i < count; i++ {
		waiting.Add(1)
		go func(i int) {
			defer waiting.Done()
			found, err := each(i)
			guard.Lock()
			defer guard.Unlock()
			r.note(found, err)
		}(i)
	}
	waiting.Wait()
}

// same looks one name up on many goroutines: all but one of them wait for that one.
func same(o options, r *result) {
	ctx, cancel := deadline(o)
	defer cancel()
	atOnce(o.goroutines, r, func(int) ([]string, error) { return lookupIP(ctx, net.DefaultResolver, o.name) })
}

// names looks up n0.NAME, n1.NAME … at once.
func names(o options, r *result) {
	ctx, cancel := deadline(o)
	defer cancel()
	atOnce(o.goroutines, r, func(i int) ([]string, error) {
		return lookupIP(ctx, net.DefaultResolver, fmt.Sprintf("n%d.%s", i, o.name))
	})
}

// turns looks up n0.NAME, n1.NAME … one after the other.
func turns(o options, r *result) {
	for i := 0; i < o.lookups; i++ {
		ctx, cancel := deadline(o)
		r.note(lookupIP(ctx, net.DefaultResolver, fmt.Sprintf("n%d.%s", i, o.name)))
		cancel()
	}
}

// grpc asks as gRPC's resolver for the scheme dns does: for addresses, for load balancers, for its settings.
func grpc(o options, r *result) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	atOnce(2, r, func(i int) ([]string, error) {
		if i == 0 {
			return lookupHost(ctx, net.DefaultResolver, o.name)
		}
		return lookupTXT(ctx, net.DefaultResolver, "_grpc_config."+o.name)
	})
}

// many does exactly o.lookups lookups from o.goroutines goroutines whose stacks grow under each of them, now
// here and now there, while the collector runs all the time. Every o.asked-th asks the servers for a name of
// its own; the others are in the hosts file.
func many(o options, r *result) {
	debug.SetGCPercent(1)
	var failed, succeeded, next int64
	var stop atomic.Bool
	var collector sync.WaitGroup
	collector.Add(1)
	go func() {
		defer collector.Done()
		for !stop.Load() {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}()
	var waiting sync.WaitGroup
	var lastError atomic.Value
	for g := 0; g < o.goroutines; g++ {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			for {
				i := atomic.AddInt64(&next, 1) - 1
				if i >= int64(o.lookups) {
					return
				}
				name := inHostsFile
				if o.asked > 0 && i%int64(o.asked) == 0 {
					name = fmt.Sprintf("n%d.%s", i, o.name)
				}
				// A goroutine of its own begins with a small stack: the lookup makes it grow.
				done := make(chan error)
				go func() { done <- deep(int(i)%(o.depth+1), name) }()
				if err := <-done; err != nil {
					atomic.AddInt64(&failed, 1)
					lastError.Store(err.Error())
				} else {
					atomic.AddInt64(&succeeded, 1)
				}
			}
		}()
	}
	waiting.Wait()
	stop.Store(true)
	collector.Wait()
	r.Lookups, r.Succeeded = int(failed+succeeded), int(succeeded)
	if text, hasFailed := lastError.Load().(string); hasFailed {
		r.Error = text
	}
}

// deep looks up below so many frames, each small: so the stack's end comes at any of the calls.
//
//go:noinline
func deep(depth int, name string) error {
	var frame [48]byte
	if depth > 0 {
		frame[depth%len(frame)] = byte(depth)
		err := deep(depth-1, name)
		runtime.KeepAlive(&frame)
		return err
	}
	_, err := net.DefaultResolver.LookupIPAddr(context.Background(), name)
	return err
}

// busy lets a goroutine look up, and then keeps the only processor for itself.
func busy(o options, r *result) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1) // it would wait for ever for the loop to stop
	perSecond := calibrate()
	done := make(chan struct{})
	go func() {
		one(lookupIP)(o, r)
		close(done)
	}()
	time.Sleep(100 * time.Millisecond) // the question is out by now
	spin(int64(float64(perSecond) * o.busy.Seconds()))
	<-done
}

// calibrate says how many turns of the loop take a second.
func calibrate() int64 {
	const turns = 20_000_000
	started := time.Now()
	spin(turns)
	return int64(turns / time.Since(started).Seconds())
}

var sink uint64

// spin calls nothing, so that with GODEBUG=asyncpreemptoff=1 nobody can interrupt it.
//
//go:noinline
func spin(turns int64) {
	x := uint64(turns)
	for i := int64(0); i < turns; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

// loop does the quickest lookup there is, as often as each line of standard input says: for `make bench`.
func loop(o options, r *result) {
	for {
		var count int
		if _, err := fmt.Fscan(os.Stdin, &count); err != nil {
			return
		}
		started := time.Now()
		for i := 0; i < count; i++ {
			found, err := lookupIP(context.Background(), net.DefaultResolver, o.name)
			if err != nil || len(found) == 0 {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		fmt.Println(float64(time.Since(started).Nanoseconds()) / float64(count))
	}
}
