//! The worker: session, task state machines, executor on the Docker Engine, logs.
