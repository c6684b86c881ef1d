"""Everything that looks at the world: the kernel, /proc, files. One outside thing for each module."""
