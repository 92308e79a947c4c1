//! Raft: openraft on SQLite, behind one small trait.
