#!/bin/sh
# Sources and a makefile: parts that gcc has something to do with, a library, a program, and what the program says.
mkdir -p tree/scratch
awk -v parts="$1" 'BEGIN {
    for (p = 1; p <= parts; p++) {
        file = sprintf("tree/part%d.c", p)
        printf "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n" > file
        for (f = 1; f <= 8; f++) {
            printf "static double step%d(double *v, int n) { double s = %d; for (int i = 0; i < n; i++) for (int j = 0; j < %d; j++) ", f, p, f + 2 > file
            printf "s = s * 0.5 + v[(i * j + %d) %% n] * (i %% %d ? 1.5 : -0.25); return s; }\n", p, f + 1 > file
        }
        printf "double part%d(double *v, int n) { double s = 0;", p > file
        for (f = 1; f <= 8; f++) printf " s += step%d(v, n);", f > file
        print " return s; }" > file
        close(file)
    }
    main = "tree/main.c"
    print "#include <stdio.h>" > main
    for (p = 1; p <= parts; p++) printf "double part%d(double *, int);\n", p > main
    print "int main(void) { double v[64], s = 0; for (int i = 0; i < 64; i++) v[i] = i % 7;" > main
    for (p = 1; p <= parts; p++) printf "s += part%d(v, 64); printf(\"%d %%a\\n\", s);\n", p, p > main
    print "}" > main
    make = "tree/Makefile"
    print "CFLAGS = -O2\nOBJECTS = $(patsubst %.c,%.o,$(filter-out main.c,$(sort $(wildcard *.c))))" > make
    print "said: program\n\t./program >said\nprogram: main.o libparts.a\n\t$(CC) -o $@ $^" > make
    print "libparts.a: $(OBJECTS)\n\tar rcD $@ $^" > make
}'
