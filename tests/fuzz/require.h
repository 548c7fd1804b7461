/* What must hold: says where it does not, and ends the fuzz target. */
#ifndef FUZZ_REQUIRE_H
#define FUZZ_REQUIRE_H

#include <stdio.h>
#include <stdlib.h>

#define require(truth)                                                                             \
    do {                                                                                           \
        if (!(truth)) {                                                                            \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #truth);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
