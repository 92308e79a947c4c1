//! A tiny web service for demos and tests.

fn main() {}
