"""draftmeta inside a real serving engine: tokens and tensors compared, refreshes timed. ci/engine runs it."""
