//! `wan-run serve`: the web page and ComfyUI's API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use candle_core::DeviceLocation;
use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;
use wan_models::Registry;
use wan_serve::{Access, Engine, Limits, Options, ServeError, Server, Stop, Stopped, Token};

use crate::cli::PlacesArgs;
use crate::error::{Failure, Outcome};
use crate::options::{resolve, user_defaults, variable};
use crate::progress::say;
use crate::settings::Settings;

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on: localhost, an IP address of this machine, or 0.0.0.0 for all networks, which is also what
    /// --listen alone means. Any but a loopback address needs a token you choose.
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..=1,
        default_value = "127.0.0.1",
        default_missing_value = "0.0.0.0",
        value_parser = listen_address,
        help_heading = "Address"
    )]
    pub listen: IpAddr,
    /// Port to listen on; 0 picks a free one and prints it.
    #[arg(long, value_name = "PORT", default_value_t = 8188, help_heading = "Address")]
    pub port: u16,
    /// Token clients must present [default: WAN_RUN_TOKEN, else a random one, kept in the data folder].
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", help_heading = "Access")]
    pub token: Option<String>,
    /// File that contains the token.
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub token_file: Option<PathBuf>,
    /// Accept anyone who can connect if no token is set.
    #[arg(long, help_heading = "Access")]
    pub insecure: bool,
    /// Origin whose pages may use the server from a browser; may be repeated.
    #[arg(long, value_name = "ORIGIN", help_heading = "Access")]
    pub enable_cors_header: Vec<String>,
    /// Folder for the queue, inputs and outputs [default: WAN_RUN_DATA_DIR, else wan-run in the platform's data folder].
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub data_dir: Option<PathBuf>,
    /// Folder of another front end, such as ComfyUI's own.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub front_end_root: Option<PathBuf>,
    /// What clients and jobs may take.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Model to use for published workflows: a name, or a .toml file that describes one
    /// [default: WAN_RUN_MODEL, else wan2.1-i2v-14b-480p-fp8].
    #[arg(long, short, value_name = "NAME")]
    pub model: Option<String>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Format of the log on standard error; WAN_RUN_LOG sets its level (error, warn, info or debug).
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Where models are.
    #[command(flatten)]
    pub places: PlacesArgs,
}

/// Bounds of what the server takes on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Most jobs in the queue; more are refused with 429.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_queue: u32,
    /// Most simultaneous connections; further ones are closed.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_connections: u32,
    /// Longest time from a request to its answer.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub request_time: Duration,
    /// Longest computing time of a job, such as 90m or 24h; after that it fails.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub job_time: Duration,
    /// Free space to keep on the data folder's disk; below it, jobs and uploads are refused with 507.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub min_free_disk: ByteSize,
    /// Largest size of the data folder [default: no limit].
    #[arg(long, value_name = "SIZE")]
    pub max_data: Option<ByteSize>,
    /// GPU memory a job may use, such as 12GB; a job that needs more fails [default: what is free].
    #[arg(long, value_name = "SIZE")]
    pub max_vram: Option<String>,
    /// Main memory a job may allocate, such as 16GB; a job that needs more fails [default: what is free].
    #[arg(long, value_name = "SIZE")]
    pub max_ram: Option<String>,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits {
            queue: self.max_queue as usize,
            connections: self.max_connections as usize,
            request_time: self.request_time,
            job_time: self.job_time,
            free_disk: self.min_free_disk.as_u64(),
            data: self.max_data.map(|size| size.as_u64()),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("found `{text}`, expected a time above zero such as 30s, 90m or 24h");
    let parsed: SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(parsed).ok().filter(|time| !time.is_zero()).ok_or_else(expected)
}

/// Names are not looked up, but for the one that means this machine everywhere.
fn listen_address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| {
        "expected localhost or one IP address of this machine, such as 127.0.0.1 (this machine alone), 0.0.0.0 (all \
         networks) or 192.168.1.5 (one of them); the port has an option of its own, --port"
            .into()
    })
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text lines.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Unprotected { .. }
            | ServeError::Token { .. }
            | ServeError::Origin { .. }
            | ServeError::FrontEnd { .. } => Self::usage(error),
            error => Self::run(error),
        }
    }
}

/// Runs the command: serves until it is told to stop.
pub fn run(args: ServeArgs) -> Outcome {
    start_log(args.log_format);
    let engine = engine(&args)?;
    let opened = match engine.device.location() {
        DeviceLocation::Cuda { gpu_id } => Some(format!("cuda:{gpu_id}")),
        _ => None,
    };
    let data_dir = match args.data_dir.clone().or_else(|| variable("WAN_RUN_DATA_DIR").map(PathBuf::from)) {
        Some(folder) => folder,
        None => default_data_dir()?,
    };
    let options = Options {
        listen: args.listen,
        port: args.port,
        access: access(&args)?,
        cors_origins: args.enable_cors_header,
        data_dir,
        front_end_root: args.front_end_root,
        limits: args.limits.limits(),
    };
    let server = Server::start(options, engine)?;
    stop_on_signal(server.stop_handle());
    announce(&server)?;
    match server.run() {
        Err(ServeError::DeviceLost) => Err(start_again(opened.filter(|_| args.device.is_none()))),
        Ok(Stopped::WhileComputing) => crate::signals::leave(0),
        served => served.map(|_| ()).map_err(Failure::from),
    }
}

/// Replaces this process by a new one of the same command line, since a GPU that was lost answers another process alone. It
/// goes on with the queue; a job that loses the GPU again and again is given up after some attempts. Returns only what is
/// in the way. `device`: what was opened, where the command line leaves it open.
fn start_again(device: Option<String>) -> Failure {
    let lost = ServeError::DeviceLost;
    say("wan-run: the GPU was lost: the server starts again");
    let program = std::env::current_exe().unwrap_or_else(|_| "wan-run".into());
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1));
    // Rather no server than one that goes on at the CPU's pace.
    if let Some(device) = device {
        command.args(["--device", &device]);
    }
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    Failure::run(format!("{lost} ({error})"))
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("WAN_RUN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn engine(args: &ServeArgs) -> Outcome<Engine> {
    let settings = Settings {
        model: args.model.clone(),
        device: args.device.clone(),
        max_vram: args.limits.max_vram.clone(),
        max_ram: args.limits.max_ram.clone(),
        models_dir: args.places.models_dir.clone(),
        extra_model_paths: args.places.extra_model_paths.clone(),
        ..Settings::default()
    };
    let registry = Registry::builtin()?;
    let options = resolve(settings.or(user_defaults(args.places.config.as_deref())?), &registry)?;
    let places = options.places()?;
    let files = registry.resolve(&options.model, &places)?;
    let device = options.open_device(say)?;
    Ok(Engine { files, device, memory: options.limits, places, registry })
}

fn default_data_dir() -> Outcome<PathBuf> {
    let missing = || Failure::usage("no home folder: name a folder for the queue and files with --data-dir");
    Ok(dirs::data_dir().ok_or_else(missing)?.join("wan-run"))
}

/// The token that was named; else the server's own, unless everybody is let in.
fn access(args: &ServeArgs) -> Outcome<Access> {
    let named = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => Some(
            std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?,
        ),
        (None, None) => variable("WAN_RUN_TOKEN").map(|token| token.to_string_lossy().into_owned()),
    };
    match named {
        Some(token) => Ok(Access::Token(Token::new(token.trim())?)),
        None if args.insecure => Ok(Access::Open),
        None => Ok(Access::Kept),
    }
}

/// The first Ctrl-C, SIGTERM or SIGHUP stops the server after the present step, the second at once.
fn stop_on_signal(stop: Stop) {
    let asked = AtomicBool::new(false);
    let handler = move || {
        if asked.swap(true, Ordering::Relaxed) {
            crate::signals::stop_at_once();
        }
        stop.stop();
    };
    if let Err(error) = crate::signals::on_stop(handler) {
        say(&format!("wan-run: signals cannot be handled ({error}): they will stop the program at once"));
    }
}

/// The address, the token, and a link that opens the page with it.
fn announce(server: &Server) -> Outcome {
    let token = server.token().map_or("none, everybody who can connect is let in", Token::reveal);
    let mut text = format!("address: http://{}\ntoken: {token}\npage: {}\n", server.address(), server.link());
    // "All addresses" is none that another machine could open.
    if let Some(address) = network_address(server.address()) {
        text.push_str(&format!("from other machines: http://{address}\n"));
    }
    crate::print(text.as_bytes())
}

/// Where other machines find a server that listens on all addresses: this machine's address on the way to the rest of the
/// network.
fn network_address(listening: SocketAddr) -> Option<SocketAddr> {
    if !listening.ip().is_unspecified() {
        return None;
    }
    // Nothing is sent to these (they are for documentation): the system only looks up which way it would take.
    let ways = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let own = ways.into_iter().find_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok()
    })?;
    Some(SocketAddr::new(own.ip(), listening.port()))
}
