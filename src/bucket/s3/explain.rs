//! The SDK's errors in the words of [`BucketError`]; the server's own words are kept.
use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::BucketError;

/// What an error about `key` means. No secret is in it: neither requests nor their headers are printed.
pub(super) fn explain<E>(error: &SdkError<E>, key: &str, server: &str) -> BucketError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let what = if key.is_empty() { server } else { key };
            told(status, answer.err().code(), answer.err().message(), what)
        }
        // The request was never sent: no credentials, or a key that cannot be written in an address.
        SdkError::ConstructionFailure(_) => BucketError::Refused(format!("{key}: {}", chain(error))),
        // No key was found where AWS tools look; a line that is down looks alike, but says something else.
        SdkError::DispatchFailure(_) if chain(error).contains("credentials") => {
            BucketError::Refused(format!("there is no key for {server}: {}", chain(error)))
        }
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            BucketError::Unreachable(format!(
                "{server} did not answer as an S3 server does (HTTP {status}): {}",
                root_cause(error)
            ))
        }
        _ => BucketError::Unreachable(format!("{server}: {}", root_cause(error))),
    }
}

/// What a server's answer means.
fn told(status: u16, code: Option<&str>, message: Option<&str>, key: &str) -> BucketError {
    let text = match (code, message) {
        // Answers to HEAD have no body.
        (None, _) if status < 300 => format!("{key}: it did not answer as an S3 server does (HTTP {status})"),
        (None, _) => format!("{key}: the server said nothing but HTTP {status}"),
        (Some(code), message) => format!("{key}: {} ({code}, HTTP {status})", message.unwrap_or("no message")),
    };
    match (status, code.unwrap_or_default()) {
        (_, "NoSuchBucket") => BucketError::Refused(format!("{text}; make the bucket first, or look at its name")),
        (_, "RequestTimeTooSkewed") => {
            BucketError::Refused(format!("{text}; is this machine's clock right? The server's says something else"))
        }
        (_, "QuotaExceeded" | "XMinioStorageFull" | "StorageFull") | (507, _) => BucketError::Full(text),
        // Damaged on its way, or too much at once: the same again may work.
        (429 | 500 | 502..=504, _)
        | (_, "SlowDown" | "RequestTimeout" | "InternalError" | "BadDigest" | "XAmzContentSHA256Mismatch") => {
            BucketError::Unreachable(text)
        }
        (404, _) | (_, "NoSuchKey" | "NotFound" | "NoSuchUpload") => BucketError::NotFound(text),
        (412 | 409, _) => BucketError::Exists(text),
        (401 | 403, _) | (_, "AuthorizationHeaderMalformed" | "ExpiredToken" | "InvalidToken") => {
            BucketError::Refused(text)
        }
        _ => BucketError::Other(text),
    }
}

/// The innermost cause: "connection refused" rather than "dispatch failure".
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_decides_what_a_caller_does() {
        type Is = fn(&BucketError) -> bool;
        let (refused, full, lost, other): (Is, Is, Is, Is) = (
            |error| matches!(error, BucketError::Refused(_)),
            |error| matches!(error, BucketError::Full(_)),
            |error| error.worth_retrying(),
            |error| matches!(error, BucketError::Other(_)),
        );
        for (status, code, is) in [
            (403, "AccessDenied", refused),
            (403, "RequestTimeTooSkewed", refused),
            (400, "AuthorizationHeaderMalformed", refused),
            (404, "NoSuchBucket", refused),
            (507, "InsufficientStorage", full),
            (403, "QuotaExceeded", full),
            (503, "SlowDown", lost),
            (400, "RequestTimeout", lost),
            (400, "BadDigest", lost),
            (500, "InternalError", lost),
            (400, "EntityTooLarge", other),
            (404, "NoSuchKey", |error| matches!(error, BucketError::NotFound(_))),
            (404, "NoSuchUpload", |error| matches!(error, BucketError::NotFound(_))),
            (412, "PreconditionFailed", |error| matches!(error, BucketError::Exists(_))),
            (409, "ConditionalRequestConflict", |error| matches!(error, BucketError::Exists(_))),
        ] {
            let error = told(status, Some(code), Some("so it is"), "job/data");
            assert!(is(&error), "{status} {code}: {error:?}");
            assert!(error.to_string().contains(&format!("job/data: so it is ({code}, HTTP {status})")), "{error}");
        }
        assert_eq!(
            told(403, None, None, "job/data").to_string(),
            "refused: job/data: the server said nothing but HTTP 403"
        );
    }
}
