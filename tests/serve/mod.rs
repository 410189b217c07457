//! `wan-run serve` from outside: the real binary on a free port, spoken to over TCP. Tests are named after what a
//! client relies on; together they cover ComfyUI's API as its clients use it.

mod access;
mod full_disk;
mod guide_client;
mod history;
mod limits;
mod malformed;
mod prompts;
mod pypi_client;
mod queue;
mod resources;
mod server;
mod sockets;
mod survival;
mod uploads;
mod view;
mod workflows;
