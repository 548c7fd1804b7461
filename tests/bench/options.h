/* What load was asked to do. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "kind.h"

enum { CCACHES_MAX = 64 };

struct options {
    const char *address;
    size_t count;
    size_t seconds;
    size_t parallel;
    size_t rate;   /* 0: a closed loop */
    size_t tokens; /* made beforehand, if there are any */
    bool roles[3]; /* by enum role */
    size_t weights[KIND_COUNT];
    int expect;
    char *ccaches[CCACHES_MAX];
    size_t ccache_count;
    const char *service;
    struct style style;
    bool raw;
    bool premint;
    size_t pieces; /* 0: in one go */
    bool json;
};

extern struct options options;

/* Reads the command line; what cannot be done ends the program with 64, --help with 0. */
void options_read(int argc, char **argv);

#endif
