//! Lets in who knows the token, and logs browsers in.

use std::net::SocketAddr;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;

use super::token::{Presented, Token, parameter};
use crate::app::Shared;
use crate::body::{self, SMALL_LIMIT};
use crate::page;
use crate::reply::{ApiError, empty, json_with};

/// Lets requests through that present the token, and the few paths that need none: the log-in page with its files,
/// and `/health`.
pub(crate) async fn guard(
    State(app): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &app.token else { return next.run(request).await };
    match token.look(request.headers(), request.uri()) {
        Presented::Right if is_page_with_token(&request) => with_cookie(redirect("/"), token),
        Presented::Right => next.run(request).await,
        _ if is_open(request.uri().path()) => next.run(request).await,
        Presented::Wrong => {
            hold_back(&app, peer).await;
            refuse(request.headers())
        }
        Presented::Nothing => refuse(request.headers()),
    }
}

/// `POST /login`: the form's password is the token; a cookie is the answer.
pub(crate) async fn login(
    State(app): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Body,
) -> Result<Response, ApiError> {
    let form = body::read(body, SMALL_LIMIT).await?;
    let Some(token) = &app.token else { return Ok(redirect("/")) };
    // In a form, a plus is a space.
    let form = String::from_utf8_lossy(&form).replace('+', "%20");
    if parameter(&form, "password").is_some_and(|password| token.is(&password)) {
        return Ok(with_cookie(redirect("/"), token));
    }
    hold_back(&app, peer).await;
    Ok(redirect("/login?wrong_password=1"))
}

/// Whether this is the page's address with the token in it, as it is printed at the start: the token is to leave
/// the address bar.
fn is_page_with_token(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.uri().path() == "/"
        && request.method() == Method::GET
        && wants_html(request.headers())
        && parameter(query, "token").is_some()
}

fn is_open(path: &str) -> bool {
    path == "/login" || path == "/health" || page::is_login_file(path)
}

fn wants_html(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept.to_str().is_ok_and(|a| a.contains("text/html")))
}

async fn hold_back(app: &Shared, peer: SocketAddr) {
    let delay = app.throttle.wrong(peer.ip(), Instant::now());
    app.metrics.refused();
    if !delay.is_zero() {
        tracing::warn!(client = %peer.ip(), "many wrong tokens");
        tokio::time::sleep(delay).await;
    }
}

fn refuse(headers: &HeaderMap) -> Response {
    if wants_html(headers) {
        return redirect("/login");
    }
    let mut response = json_with(StatusCode::UNAUTHORIZED, &json!({"error": "Authentication required."}));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn redirect(to: &'static str) -> Response {
    let mut response = empty(StatusCode::FOUND);
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(to));
    response
}

fn with_cookie(mut response: Response, token: &Token) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(&token.cookie()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
