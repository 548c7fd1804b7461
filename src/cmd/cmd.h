/* The subcommands: argv[0] is the subcommand's own word; each returns the exit status. */
#ifndef CMD_CMD_H
#define CMD_CMD_H

int cmd_serve(int argc, char **argv);
int cmd_check(int argc, char **argv);

/* $SPNEGATE_CONFIG, or the built-in path. */
const char *cmd_config_default(void);

#endif
