/*
 * The supervisor as the keeper of the audit trail: calls it by the clock and on signals, and writes
 * what it says to the daemon's log.
 */
#ifndef SERVE_KEEPER_H
#define SERVE_KEEPER_H

#include "conf/config.h"
#include "trail/audit.h"

#include <stdbool.h>
#include <stdint.h>

/* Says which chain it is, and the key that begins it; from now on a disk that hangs does not keep
 * us. */
void keeper_start(const struct audit *audit);

/*
 * Seals, rotates and syncs when it is time, and goes on in a new file when the old one was deleted;
 * `now_ms` is monotonic. True: the trail is in another directory now, where confined workers cannot
 * follow; others have to take their place.
 */
bool keeper_tick(struct audit *audit, const struct config *config, uint64_t now_ms);

/* Goes on in a new file if the old one was renamed, and says what came of it. */
void keeper_rotate(struct audit *audit);

/* The last words; whoever starts next reads from them that nothing was cut off. */
void keeper_stop(struct audit *audit);

#endif
