//! Unknown paths and methods.

use axum::extract::Request;

use crate::api::problem::Problem;
use crate::code::ErrorCode;

/// 404.
pub(in crate::api) async fn not_found() -> Problem {
    let detail = "There is nothing at this path. GET /docs lists what there is.";
    Problem::new(ErrorCode::NotFound, detail)
}

/// 405. The router adds `Allow`.
pub(in crate::api) async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("{} is not a method of this path.", request.method());
    Problem::new(ErrorCode::MethodNotAllowed, detail)
}
