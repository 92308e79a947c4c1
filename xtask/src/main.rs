//! cargo xtask demo | test | bench | verify.

fn main() {}
