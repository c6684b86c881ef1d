module lab.test/library

go 1.21
