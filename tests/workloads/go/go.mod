module lab.test/gotarget

go 1.18
