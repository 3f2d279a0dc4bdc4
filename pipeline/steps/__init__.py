"""Working on a step of a job: lease, heartbeat, progress, checkpoint, retry and end."""
