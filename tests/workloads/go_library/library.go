// Go inside of a program of another language: a C library with one function that looks a name up.
//
// Owns: that function. Must not know: who calls it.
package main

import "C"

import "net"

//export look_up
func look_up(name *C.char) *C.char {
	_, err := net.LookupIP(C.GoString(name))
	if err != nil {
		return C.CString(err.Error())
	}
	return C.CString("")
}

func main() {}
