//! `rusuban docker-acl`: what the jobs need of a Docker engine, for a proxy that lets through no more.
use std::sync::Arc;

use clap::ValueEnum;
use serde_json::json;

use super::{Context, Exit, paint};
use crate::{
    coverage,
    docker::access::{self, Access},
    job::Job,
    kinds, text,
};

/// What to print, and of which jobs.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The jobs [default: all that use Docker]
    jobs: Vec<String>,
    /// What `rusuban coverage` and `rusuban init` ask, too
    #[arg(long)]
    coverage: bool,
    /// What `rusuban restore` asks for containers and volumes, and `rusuban rollback`, too
    #[arg(long)]
    restore: bool,
    /// For people, or for which proxy
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for each job
    Text,
    /// Environment variables for Tecnativa's docker-socket-proxy
    Tecnativa,
    /// Options for wollomatic's socket-proxy
    Wollomatic,
    /// For programs
    Json,
}

/// Prints it. Nobody is asked anything.
pub(super) fn print(context: &mut Context<'_>, arguments: &Arguments) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let mut jobs: Vec<Arc<Job>> = Vec::new();
    for name in &arguments.jobs {
        match config.jobs.values().find(|job| job.name.as_str() == name) {
            Some(job) => jobs.push(Arc::clone(job)),
            None => return context.missing(&format!("there is no job `{name}`; `rusuban jobs` lists them")),
        }
    }
    if jobs.is_empty() {
        jobs = config.jobs.values().filter(|job| !job.engine(false).is_empty()).cloned().collect();
    }
    let labels = config.settings.docker.heeds_labels();
    let is_afar = config.settings.docker.is_afar();
    let with_afar = |needs: Vec<Access>, afar: Vec<Access>| {
        access::union(needs.into_iter().chain(afar.into_iter().filter(|_| is_afar)))
    };
    let of_job =
        |job: &Arc<Job>| (job.name.to_string(), job.kind_name, with_afar(job.engine(labels), job.kind.engine_afar()));
    let mut asked: Vec<Asked> = jobs.iter().map(of_job).collect();
    if arguments.coverage {
        asked.push(("coverage".to_owned(), "command", access::union(coverage::host::needs())));
    }
    if arguments.restore {
        asked.push(("restore".to_owned(), "command", with_afar(kinds::restore::needs(), kinds::restore::needs_afar())));
    }
    let may_be_afar = !is_afar && (arguments.restore || jobs.iter().any(|job| !job.kind.engine_afar().is_empty()));
    let all = access::union(asked.iter().flat_map(|(.., needs)| needs.clone()));
    let printed = match arguments.format {
        _ if context.json => in_json(&asked)?,
        Format::Json => in_json(&asked)?,
        Format::Text => in_words(&asked, may_be_afar),
        Format::Tecnativa => tecnativa(&all),
        Format::Wollomatic => wollomatic(&all),
    };
    write!(context.out, "{printed}")?;
    Ok(Exit::Fine)
}

/// Who asks something of the engine, what that is, and what it asks.
type Asked = (String, &'static str, Vec<Access>);

fn in_json(asked: &[Asked]) -> anyhow::Result<String> {
    let jobs: Vec<_> = (asked.iter())
        .map(|(name, kind, needs)| {
            let root = needs.iter().any(Access::amounts_to_root);
            json!({ "job": name, "kind": kind, "amounts_to_root": root, "needs": needs })
        })
        .collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&jobs)?))
}

fn in_words(asked: &[Asked], may_be_afar: bool) -> String {
    if asked.is_empty() {
        return "no job uses Docker\n".to_owned();
    }
    let mut said = String::new();
    for (name, kind, needs) in asked {
        if needs.is_empty() {
            said.push_str(&format!("{name} ({kind}): does not use Docker\n\n"));
            continue;
        }
        let mut table = text::Table::new(["  method", "path", "to"]);
        for one in needs {
            let why = if one.rare { format!("rarely: {}", one.why) } else { one.why.to_owned() };
            table.row([format!("  {}", one.method), one.path.to_owned(), why]);
        }
        said.push_str(&format!("{name} ({kind})\n{table}"));
        let root: Vec<String> = (needs.iter().filter(|one| one.amounts_to_root()))
            .map(|one| format!("{} {}{}", one.method, one.path, if one.rare { " (rarely)" } else { "" }))
            .collect();
        if !root.is_empty() {
            let warning = paint::warning("this amounts to root on the engine's host:");
            said.push_str(&format!("  {warning} {}\n", root.join(", ")));
        }
        said.push('\n');
    }
    said.push_str("Paths come after the version of the API, `/v1.47` for instance. `--format wollomatic` prints options for a proxy that\nallows no more than this.\n");
    if may_be_afar {
        said.push_str("Volumes that cannot be read from here are read by a container that is made for it; what that needs is printed once `helper` under\n[docker] in rusuban.toml names its image.\n");
    }
    said
}

/// It knows groups of paths and whether anything but reading is allowed at all.
fn tecnativa(all: &[Access]) -> String {
    let mut groups: Vec<String> = (all.iter())
        .filter_map(|one| Some(one.path.split('/').nth(1)?.to_uppercase()))
        .chain(all.iter().any(|one| one.method != "GET").then(|| "POST".to_owned()))
        .collect();
    groups.sort();
    groups.dedup();
    let mut said: String = groups.iter().map(|group| format!("{group}=1\n")).collect();
    // These are on unless they are turned off.
    for group in ["EVENTS", "PING", "VERSION"].iter().filter(|group| !groups.iter().any(|one| one == *group)) {
        said.push_str(&format!("{group}=0\n"));
    }
    let both = |group: &str| groups.iter().any(|one| one == group) && groups.iter().any(|one| one == "POST");
    if both("CONTAINERS") {
        said.push_str("# With CONTAINERS and POST any container may be made, which amounts to root on the engine's host: this proxy has no\n# finer groups. `--format wollomatic` prints the same for one that has.\n");
    }
    said
}

/// It knows methods, and a regular expression for the path of each.
fn wollomatic(all: &[Access]) -> String {
    let mut said = String::new();
    for method in ["GET", "POST", "DELETE"] {
        let patterns: Vec<String> = all.iter().filter(|one| one.method == method).map(Access::pattern).collect();
        if !patterns.is_empty() {
            said.push_str(&format!("'-allow{method}=(/v1\\.[0-9]+)?({})'\n", patterns.join("|")));
        }
    }
    if all.iter().any(Access::amounts_to_root) {
        said.push_str("# Containers may be made, or commands run in them, which amounts to root on the engine's host;\n# `-allowbindmountfrom` keeps new ones away from most of its folders.\n");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_told_in_their_own_words() {
        let all = access::union([access::VERSION, access::CONTAINER, access::PAUSE, access::IMAGE]);
        let groups = tecnativa(&all);
        assert!(groups.starts_with("CONTAINERS=1\nIMAGES=1\nPOST=1\nVERSION=1\nEVENTS=0\nPING=0\n# With"), "{groups}");
        assert_eq!(
            wollomatic(&all),
            "'-allowGET=(/v1\\.[0-9]+)?(/containers/[^/]+/json|/images/.+/json|/version)'\n\
             '-allowPOST=(/v1\\.[0-9]+)?(/containers/[^/]+/pause)'\n"
        );
        let reading = access::union([access::VERSION, access::INFO]);
        assert_eq!(tecnativa(&reading), "INFO=1\nVERSION=1\nEVENTS=0\nPING=0\n");
        assert!(wollomatic(&[access::EXEC]).contains("amounts to root"));
    }
}
