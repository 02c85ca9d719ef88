"""Starting and stopping a server on a home: a container, a binary or the embedded one."""
