//! Tests of the whole program: the real binary, and the pipeline as a library. One test binary.

mod batch;
mod checkpoints;
mod cli;
mod doctor;
mod end_to_end;
mod extend;
mod files;
mod first_five_minutes;
mod flf2v;
mod hub_server;
mod lora;
mod meaning;
mod memory;
mod models;
mod node_options;
mod probe;
mod resume;
mod selftest;
mod serve;
mod shortcuts;
mod support;
mod t2v;
mod troubleshooting;
mod workflow;
