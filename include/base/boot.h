/*
 * Which start of the host this is: what was only written to files before another one may be gone.
 */
#ifndef BASE_BOOT_H
#define BASE_BOOT_H

enum { BOOT_ID_BYTES = 37 }; /* with its terminator */

/* The kernel's id of this start of the host; "" where it cannot be read, which is like no other. */
void boot_id(char out[BOOT_ID_BYTES]);

#endif
