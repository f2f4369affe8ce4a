"""What a person asks for outside the DAG: a module a command. No stage imports them, so they rerun nothing."""
