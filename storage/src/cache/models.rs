//! Models of the lock-free parts.
