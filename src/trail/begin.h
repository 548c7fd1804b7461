/*
 * The start: finds out where the chain stands from the file, the head and the keys, which may have
 * been cut off from each other at any moment, and goes on there, or begins a chain. Where records
 * are missing it refuses, unless that was accepted.
 */
#ifndef TRAIL_BEGIN_H
#define TRAIL_BEGIN_H

#include "base/boot.h"
#include "base/fault.h"
#include "trail/ledger.h"
#include "trail/seal.h"

#include <stdbool.h>

struct begin_result {
    char boot[BOOT_ID_BYTES];
    bool clean; /* the trail before ended with a stop, or there was none */
};

/*
 * With the ledger open and the keys read: afterwards the file ends with a record, the head is right
 * and durable, and `seal` knows the key and where to recompute from. -1 and a fault.
 */
int begin_chain(struct ledger *ledger, struct seal *seal, bool accept_gap, struct begin_result *out,
                struct fault *fault);

#endif
