// Tests that a job's own LD_PRELOAD library is loaded beside the agent, in the children too: it answers getlogin itself.
char *getlogin(void) { return "a name of its own"; }
