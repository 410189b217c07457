//! Starting and stopping.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::ServiceExt;
use hyper_util::rt::TokioTimer;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore};
use wan_queue::{EmbeddedQueue, JobQueue};

use crate::ServeError;
use crate::app::{App, Arriving, Shared, service};
use crate::disk::Disk;
use crate::folders::Folders;
use crate::graphs::{Engine, Graphs};
use crate::guard::kept::{kept_secret, kept_token};
use crate::guard::origin::OriginPolicy;
use crate::guard::throttle::Throttle;
use crate::guard::token::Token;
use crate::limits::{ConnectionLimit, Limits};
use crate::metrics::Metrics;
use crate::page::FrontEnd;
use crate::socket::Hub;
use crate::worker::{self, Bus, Worker, WorkerConfig};

/// Threads that wait for the disk, or decode pictures.
const BLOCKING_THREADS: usize = 32;

/// A client that has not sent its headers by then is hung up on.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// Most bytes of a request's headers that are kept in memory.
const HEADER_BYTES: usize = 64 << 10;

/// What a shutdown waits for answers that have begun.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// What a shutdown waits for the step that is being computed. The job goes on from the last saved step anyway.
const STEP_TIME: Duration = Duration::from_secs(10);

/// How a server is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen at.
    pub listen: IpAddr,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Who is let in.
    pub access: Access,
    /// Origins whose pages may use the server from a browser.
    pub cors_origins: Vec<String>,
    /// Folder for the queue, inputs and outputs.
    pub data_dir: PathBuf,
    /// Folder with another front end.
    pub front_end_root: Option<PathBuf>,
    /// What clients and jobs may take.
    pub limits: Limits,
}

/// Who is let in.
#[derive(Debug, Clone)]
pub enum Access {
    /// Clients that present this token.
    Token(Token),
    /// Clients of this machine that present a random token, which is made at the first start and kept in the data
    /// folder.
    Kept,
    /// Everybody who can connect.
    Open,
}

/// A server that has its address and its folders, and takes jobs.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: Shared,
    stop: Stop,
    lost: Arc<AtomicBool>,
}

/// Stops a server, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Has the server finish the step it computes, save it and return.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

impl Server {
    /// Takes the address, opens folders and queue, and starts the worker.
    ///
    /// Errors: [`ServeError`] for options that are refused, and for what cannot be opened. Where options are refused or
    /// the address is taken, no data folder is made.
    pub fn start(options: Options, engine: Engine) -> Result<Self, ServeError> {
        let listen = options.listen;
        if matches!(options.access, Access::Kept) && !listen.is_loopback() {
            return Err(ServeError::Unprotected { listen });
        }
        // A name that a stranger points at this machine matters only where no token keeps strangers out.
        let check_host = matches!(options.access, Access::Open);
        let origins = OriginPolicy::new(&options.cors_origins, check_host)?;
        let front_end = FrontEnd::open(options.front_end_root.as_deref())?;
        let limits = options.limits;
        let queue_limits = wan_queue::Limits { pending: limits.queue, ..wan_queue::Limits::default() };
        let bound = TcpListener::bind((listen, options.port))
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|source| ServeError::Bind { listen, port: options.port, source });
        let bound = match bound {
            Err(error) if !options.data_dir.exists() => return Err(error),
            // Whether another server uses the folder tells more than whose port it is.
            bound => bound,
        };
        let below = worker::Folders::below(&options.data_dir);
        let queue: Arc<dyn JobQueue> =
            Arc::new(EmbeddedQueue::open_after(&options.data_dir, queue_limits, || below.make_room())?);
        let (address, listener) = bound?;
        let folders = Folders::open(&options.data_dir)?;
        let token = match options.access {
            Access::Token(token) => Some(token),
            Access::Kept => Some(kept_token(&options.data_dir)?),
            Access::Open => None,
        };
        let token = match token {
            Some(token) => Some(token.with_salt(kept_secret(&options.data_dir.join("session-salt"))?)),
            None => None,
        };

        let metrics = Arc::new(Metrics::default());
        let hub = Arc::new(Hub::new(queue.counts()?.remaining(), metrics.clone()));
        let bus = Arc::new(Bus::new(queue.clone(), Box::new(hub.clone())));
        let (model, device, processor) = (engine.model_name(), engine.device_name(), engine.device.clone());
        let sample = engine.sample();
        let (graphs, backend) = Graphs::new(engine, &folders);
        let disk = Arc::new(Disk::new(&options.data_dir, &limits));
        let (stop, lost) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        let on_device_lost = {
            let (stop, lost) = (stop.clone(), lost.clone());
            Box::new(move || {
                lost.store(true, Ordering::Release);
                stop.stop();
            })
        };
        let has_room = {
            let disk = disk.clone();
            Box::new(move |bytes| disk.fits(bytes).map_err(|error| error.message().to_owned()))
        };
        let config =
            WorkerConfig { job_time: limits.job_time, has_room, on_device_lost, ..WorkerConfig::new(below) };
        let worker = Worker::start(queue.clone(), bus.clone(), backend, config)?;
        let app = Arc::new(App {
            queue,
            bus,
            hub,
            worker: Mutex::new(Some(worker)),
            folders,
            graphs,
            token,
            origins,
            throttle: Throttle::default(),
            front_end,
            metrics,
            model,
            sample,
            device,
            processor,
            decoding: Semaphore::new(2),
            disk,
            limits,
            names: Mutex::new(()),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        Ok(Self { runtime, listener, address, app, stop, lost })
    }

    /// Where it listens: the real port, where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients must present; none where everybody is let in.
    pub fn token(&self) -> Option<&Token> {
        self.app.token.as_ref()
    }

    /// The page's address for a browser on this machine, with the token in it, which the server answers with a cookie
    /// and the address without it.
    pub fn link(&self) -> String {
        // "All addresses" is none that every browser opens.
        let host = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let query = self.token().map_or_else(String::new, |token| {
            format!("?token={}", utf8_percent_encode(token.reveal(), NON_ALPHANUMERIC))
        });
        format!("http://{}/{query}", SocketAddr::new(host, self.address.port()))
    }

    /// What stops it.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Answers until stopped.
    ///
    /// Errors: [`ServeError::Io`]; [`ServeError::DeviceLost`] where it stopped by itself.
    pub fn run(self) -> Result<Stopped, ServeError> {
        let Self { runtime, listener, app, stop, lost, .. } = self;
        let served = runtime.block_on(answer(listener, app, stop));
        // A step that takes longer than a shutdown may take is not waited for.
        runtime.shutdown_background();
        if lost.load(Ordering::Acquire) { Err(ServeError::DeviceLost) } else { served }
    }
}

/// How a server has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// With nothing left running.
    Whole,
    /// While a step was being computed that takes long: its thread still is at it.
    WhileComputing,
}

async fn answer(listener: TcpListener, app: Shared, stop: Stop) -> Result<Stopped, ServeError> {
    listener.set_nonblocking(true)?;
    let handle = axum_server::Handle::new();
    let places = ConnectionLimit::new(app.limits.connections);
    let header_time = HEADER_TIME.min(app.limits.request_time);
    // A connection on which nothing comes is in hyper's detection of the protocol, for which its own limit does not count.
    let mut server = axum_server::from_tcp(listener)?
        .handle(handle.clone())
        .acceptor(places)
        .first_request_timeout(header_time);
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time)
        .max_buf_size(HEADER_BYTES);
    let make =
        ServiceExt::<Arriving>::into_make_service_with_connect_info::<SocketAddr>(service(app.clone()));
    let stopping = tokio::spawn(async move {
        stop.0.notified().await;
        tracing::info!("stopping after the present step");
        app.hub.close();
        handle.graceful_shutdown(Some(ANSWER_TIME));
        let worker = app.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stopped = tokio::task::spawn_blocking(move || drop(worker));
        if tokio::time::timeout(STEP_TIME, stopped).await.is_err() {
            tracing::warn!("the present step is not waited for; the job goes on from the one before");
            return Stopped::WhileComputing;
        }
        Stopped::Whole
    });
    server.serve(make).await?;
    // The server ends only when it is stopped. A panic in there has been reported, and who knows what the worker does.
    Ok(stopping.await.unwrap_or(Stopped::WhileComputing))
}
