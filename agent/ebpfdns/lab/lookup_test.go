// The test that hangs: all it needs is one name. `ebpfdns demo go-test-hang` runs it.
package lookup

import (
	"context"
	"net"
	"os"
	"testing"
)

// As any Go program looks a name up, net/http's client and module downloads included.
func TestDefaultResolver(t *testing.T) {
	lookUp(t, net.DefaultResolver)
}

// The first way out: ask another server, whatever /etc/resolv.conf says.
func TestOwnResolver(t *testing.T) {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, os.Getenv("DNS_SERVER"))
	}
	lookUp(t, &net.Resolver{PreferGo: true, Dial: dial})
}

func lookUp(t *testing.T, resolver *net.Resolver) {
	t.Helper()
	addresses, err := resolver.LookupHost(context.Background(), "proxy.golang.org")
	if err != nil {
		t.Fatal(err)
	}
	t.Log("proxy.golang.org has the addresses", addresses)
}
