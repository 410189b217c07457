//! Tests of the whole program: the real binary, and the pipeline as a library. One test binary.

mod checkpoints;
mod cli;
mod end_to_end;
mod files;
mod hub_server;
mod lora;
mod memory;
mod models;
mod probe;
mod resume;
mod selftest;
mod serve;
mod support;
mod t2v;
mod workflow;
