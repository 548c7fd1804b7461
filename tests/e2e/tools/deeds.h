/* What an attacker would do who runs code in a worker; for test_sandbox.c and misdeeds.c. */
#ifndef TOOLS_DEEDS_H
#define TOOLS_DEEDS_H

/*
 * Commits the deed "NAME" or "NAME ARGUMENT": 0 if it succeeded, else its errno; ENOEXEC for a name
 * that is none.
 */
int deeds_commit(const char *deed);

#endif
