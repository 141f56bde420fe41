// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests to a bucket: what is made again, for how long, and what a failure means.

use std::error::Error as StdError;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};
use tokio::time::{Instant, sleep, timeout_at};

use crate::crypto::random_bytes;
use crate::error::{BucketFailure, chain_text};

/// The first pause between two attempts; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often an answer that makes no sense is asked for again: a proxy may have garbled one, but a
/// server that talks like that will go on.
const ODD_ANSWERS_MAX: u32 = 3;

/// Why an operation did not succeed.
#[derive(Debug)]
pub(super) enum Failed {
    /// There is no such object.
    Missing,
    /// The condition of a write does not hold. `is_doubtful`: an attempt before got no answer, and
    /// may be what made the object as it is.
    Condition { is_doubtful: bool },
    /// Anything else.
    Other {
        failure: BucketFailure,
        source: Box<dyn StdError + Send + Sync>,
    },
}

/// The bytes of an answer are not those that were asked for.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected} bytes, found {found}")]
pub(super) struct WrongLength {
    pub(super) expected: u64,
    pub(super) found: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("no whole answer within {0:?}")]
struct TooSlow(Duration);

/// Makes a request until it is answered, at most for so long.
pub(super) async fn repeat<T, F>(
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failed>
where
    F: Future<Output = object_store::Result<T>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = PAUSE_MIN;
    let mut is_doubtful = false;
    let mut odd_answers = 0;
    let mut last = None;
    loop {
        let Ok(answer) = timeout_at(deadline, attempt()).await else {
            return Err(last.unwrap_or_else(|| Failed::Other {
                failure: BucketFailure::TooSlow,
                source: Box::new(TooSlow(limit)),
            }));
        };
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match judge(&error) {
            Verdict::Missing => return Err(Failed::Missing),
            Verdict::Condition => return Err(Failed::Condition { is_doubtful }),
            Verdict::Final(failure) => return Err(other(failure, error)),
            Verdict::Odd if odd_answers >= ODD_ANSWERS_MAX => {
                return Err(other(BucketFailure::Answer, error));
            }
            Verdict::Odd => {
                odd_answers += 1;
                is_doubtful = true;
                last = Some(other(BucketFailure::Answer, error));
            }
            Verdict::Again { failure, was_sent } => {
                is_doubtful |= was_sent;
                last = Some(other(failure, error));
            }
        }
        if Instant::now() + pause >= deadline {
            return Err(last.unwrap_or(Failed::Missing));
        }
        sleep(shortened(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn other(failure: BucketFailure, error: object_store::Error) -> Failed {
    Failed::Other {
        failure,
        source: Box::new(error),
    }
}

/// Between half a pause and a whole one: clients that failed together do not come back together.
fn shortened(pause: Duration) -> Duration {
    let [random] = random_bytes::<1>().unwrap_or_default();
    pause.mul_f64(0.5 + f64::from(random) / 512.0)
}

enum Verdict {
    Missing,
    Condition,
    Final(BucketFailure),
    /// An answer that makes no sense.
    Odd,
    /// `was_sent`: the request may have been carried out.
    Again {
        failure: BucketFailure,
        was_sent: bool,
    },
}

fn judge(error: &object_store::Error) -> Verdict {
    use object_store::Error as Kind;
    let text = chain_text(error);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["NoSuchBucket"]) {
        return Verdict::Final(BucketFailure::NoBucket);
    }
    if has(&[
        "configured region",
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "IllegalLocationConstraint",
    ]) {
        return Verdict::Final(BucketFailure::Region);
    }
    match error {
        Kind::NotFound { .. } => Verdict::Missing,
        // Another write of the same name goes on at this moment: who was first is seen next time.
        Kind::AlreadyExists { .. } if has(&["ConditionalRequestConflict", "OperationAborted"]) => {
            Verdict::Again {
                failure: BucketFailure::Answer,
                was_sent: false,
            }
        }
        Kind::AlreadyExists { .. } | Kind::Precondition { .. } => Verdict::Condition,
        Kind::PermissionDenied { .. } | Kind::Unauthenticated { .. } => {
            Verdict::Final(BucketFailure::Denied)
        }
        Kind::Generic { .. } => judge_generic(error, &text),
        _ => Verdict::Final(BucketFailure::Answer),
    }
}

fn judge_generic(error: &object_store::Error, text: &str) -> Verdict {
    // The address at which a cloud's own machines get their credentials: without any other, it is
    // asked, and elsewhere nobody answers.
    if text.contains("169.254.169.254") {
        return Verdict::Final(BucketFailure::NoCredentials);
    }
    if let Some(status) = status(text) {
        return match status {
            401 | 403 => Verdict::Final(BucketFailure::Denied),
            408 | 429 | 500 | 502..=599 => Verdict::Again {
                failure: BucketFailure::Answer,
                was_sent: true,
            },
            _ => Verdict::Final(BucketFailure::Answer),
        };
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(http) = cause.downcast_ref::<HttpError>() {
            return Verdict::Again {
                failure: match http.kind() {
                    HttpErrorKind::Timeout => BucketFailure::TooSlow,
                    _ => BucketFailure::Unreachable,
                },
                was_sent: http.kind() != HttpErrorKind::Connect,
            };
        }
        source = cause.source();
    }
    Verdict::Odd
}

/// The HTTP status that an error tells, where it tells one. The client keeps it to itself but for
/// its text; what is not recognised here is taken for an odd answer and asked for again.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Whether a write was refused because the store knows no conditions.
pub(super) fn is_unsupported(source: &(dyn StdError + 'static)) -> bool {
    matches!(status(&chain_text(source)), Some(400 | 405 | 501))
}

/// Whether a range was asked for of an object that ends before it.
pub(super) fn is_past_the_end(source: &(dyn StdError + 'static)) -> bool {
    status(&chain_text(source)) == Some(416)
}
