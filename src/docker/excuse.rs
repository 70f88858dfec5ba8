//! What an engine says when it could not start a program, put in our words. It says so in place of the program: where the
//! program's output is expected.
use super::{client::EngineError, exec::ExecError};

/// No more is held back than this.
const LONGEST: usize = 4 << 10;
const BEGINNINGS: [&[u8]; 4] =
    [b"OCI runtime exec failed", b"OCI runtime error", b"unable to find user", b"unable to find group"];

/// Whether a program's first words look like the engine's, as far as they have come.
pub(super) fn may_be_excuse(words: &[u8]) -> bool {
    let fits = |beginning: &&[u8]| words.starts_with(beginning) || beginning.starts_with(words);
    words.len() <= LONGEST && BEGINNINGS.iter().any(fits)
}

/// What an engine that refuses to start a program says, in our words; none when it is about something else.
pub(super) fn refused(error: &EngineError, program: &str, container: &str, folder: Option<&str>) -> Option<ExecError> {
    let (EngineError::Refused { message, .. } | EngineError::NotFound(message)) = error else { return None };
    let is_excuse = ["OCI runtime", "executable file", "unable to find user", "unable to find group", "no users found"];
    is_excuse.iter().any(|words| message.contains(words)).then(|| excused(message, program, container, folder))
}

/// An excuse as an error.
pub(super) fn excused(excuse: &str, program: &str, container: &str, folder: Option<&str>) -> ExecError {
    let has = |words: &str| excuse.contains(words);
    let why = match folder {
        Some(folder) if has("chdir to cwd") || has("mkdir") => format!("there is no folder {folder} in it"),
        _ if has("executable file") || has("no such file or directory") => "there is no such program in it".to_owned(),
        _ if has("permission denied") => "permission denied (is it executable, and its user allowed to?)".to_owned(),
        _ => excuse.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    ExecError::NotStarted { program: program.to_owned(), container: container.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_says_instead_of_starting_a_program_is_put_in_our_words() {
        for (excuse, expected) in [
            (
                "OCI runtime exec failed: exec failed: container_linux.go:367: starting container process caused: exec: \"x\": executable file not found in $PATH: unknown\r\n",
                "there is no such program in it",
            ),
            (
                "OCI runtime exec failed: exec failed: unable to start container process: exec: \"/x\": stat /x: no such file or directory: unknown",
                "there is no such program in it",
            ),
            (
                "OCI runtime exec failed: exec failed: container_linux.go:367: starting container process caused: exec: \"/etc\": permission denied: unknown",
                "permission denied (is it executable, and its user allowed to?)",
            ),
            (
                "OCI runtime exec failed: exec failed: container_linux.go:367: starting container process caused: chdir to cwd (\"/f\") set in config.json failed: no such file or directory: unknown",
                "there is no folder /f in it",
            ),
            ("OCI runtime exec failed: open\n  /dev/null", "OCI runtime exec failed: open /dev/null"),
        ] {
            let said = excused(excuse, "x", "blog", Some("/f")).to_string();
            assert_eq!(said, format!("run `x` in container `blog`: {expected}"));
        }
    }
}
