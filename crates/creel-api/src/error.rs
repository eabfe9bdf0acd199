//! Errors as the API says them: a status and `{"message": "…"}`.

use axum::response::{IntoResponse, Response};
use creel_types::ErrorKind;
use creel_wire::system::ErrorResponse;
use http::StatusCode;

/// What a handler answers when it cannot do what was asked.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// The request is wrong: status 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// There is nothing at this path: status 404.
    pub fn no_route(method: &http::Method, path: &str) -> Self {
        let message = format!("page not found: {method} {path} is not in creel's API");
        Self { status: StatusCode::NOT_FOUND, message }
    }

    /// An error by its kind.
    pub fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, message: message.into() }
    }
}

impl From<creel_engine::Error> for ApiError {
    fn from(error: creel_engine::Error) -> Self {
        Self::of(error.kind(), error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), "{}", self.message);
        }
        (self.status, axum::Json(ErrorResponse { message: self.message })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_status_that_docker_clients_expect() {
        let status = |kind| ApiError::of(kind, "").status.as_u16();
        assert_eq!(status(ErrorKind::NotFound), 404);
        assert_eq!(status(ErrorKind::Conflict), 409);
        assert_eq!(status(ErrorKind::ProgramNotFound), 400);
        assert_eq!(status(ErrorKind::NotModified), 304);
    }
}
