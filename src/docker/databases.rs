//! Databases in containers: which one it is, how that is known, and where it has its files. Pure.
use serde::Serialize;

use super::container::Container;

/// A database engine that people run in containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Database {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    MariaDb,
    /// MySQL.
    MySql,
    /// Redis, and what came of it.
    Redis,
    /// MongoDB.
    MongoDb,
    /// HSQLDB, as a server or within a Java program.
    Hsqldb,
    /// InfluxDB.
    InfluxDb,
    /// OpenLDAP.
    OpenLdap,
}

/// A database that was found in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFound {
    /// Which.
    pub database: Database,
    /// How that is known, in words.
    pub because: String,
    /// Where the container has its files, as far as it can be told.
    pub folder: Option<String>,
    /// Nothing of it is written to a disk: it was told so.
    pub in_memory: bool,
}

/// What an engine is known by.
struct Marks {
    database: Database,
    name: &'static str,
    /// Its server's program.
    programs: &'static [&'static str],
    /// The first word of an image's own name.
    images: &'static [&'static str],
    /// Variables that its image has and its clients have not.
    variables: &'static [&'static str],
    /// Variables and arguments that say where its files are.
    says_folder: &'static [&'static str],
    /// Where they are else.
    folder: Option<&'static str>,
}

const MARKS: [Marks; 8] = [
    Marks {
        database: Database::Postgres,
        name: "PostgreSQL",
        programs: &["postgres", "postmaster"],
        images: &["postgres", "postgresql", "postgis", "pgvector", "timescaledb"],
        variables: &["PG_MAJOR", "PG_VERSION", "PGDATA"],
        says_folder: &["PGDATA", "-D"],
        folder: Some("/var/lib/postgresql/data"),
    },
    Marks {
        database: Database::MariaDb,
        name: "MariaDB",
        programs: &["mariadbd", "mariadbd-safe"],
        images: &["mariadb"],
        variables: &["MARIADB_VERSION", "MARIADB_MAJOR"],
        says_folder: &["--datadir"],
        folder: Some("/var/lib/mysql"),
    },
    Marks {
        database: Database::MySql,
        name: "MySQL",
        programs: &["mysqld", "mysqld_safe"],
        images: &["mysql", "percona"],
        variables: &["MYSQL_MAJOR", "MYSQL_VERSION"],
        says_folder: &["--datadir"],
        folder: Some("/var/lib/mysql"),
    },
    Marks {
        database: Database::Redis,
        name: "Redis",
        programs: &["redis-server", "valkey-server", "keydb-server"],
        images: &["redis", "valkey", "keydb"],
        variables: &["REDIS_VERSION", "VALKEY_VERSION"],
        says_folder: &["--dir"],
        folder: Some("/data"),
    },
    Marks {
        database: Database::MongoDb,
        name: "MongoDB",
        programs: &["mongod"],
        images: &["mongo", "mongodb"],
        variables: &["MONGO_MAJOR", "MONGO_VERSION"],
        says_folder: &["--dbpath"],
        folder: Some("/data/db"),
    },
    Marks {
        database: Database::Hsqldb,
        name: "HSQLDB",
        programs: &["org.hsqldb.server.Server", "org.hsqldb.Server", "org.hsqldb.server.WebServer"],
        images: &["hsqldb"],
        variables: &[],
        says_folder: &[],
        folder: None,
    },
    Marks {
        database: Database::InfluxDb,
        name: "InfluxDB",
        programs: &["influxd", "influxdb3"],
        images: &["influxdb", "influxdb3"],
        variables: &["INFLUXDB_VERSION"],
        says_folder: &[],
        folder: None,
    },
    Marks {
        database: Database::OpenLdap,
        name: "OpenLDAP",
        programs: &["slapd"],
        images: &["openldap"],
        variables: &[],
        says_folder: &[],
        folder: Some("/var/lib/ldap"),
    },
];

/// An image whose name has one of these words stands beside a database and is none.
const BESIDE: [&str; 12] = [
    "exporter",
    "express",
    "commander",
    "insight",
    "admin",
    "backup",
    "proxy",
    "operator",
    "client",
    "ui",
    "web",
    "sentinel",
];

/// How a Java program names a database of files that it has within itself.
const HSQLDB_FILE: &str = "jdbc:hsqldb:file:";

impl Database {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.marks().name
    }

    fn marks(self) -> &'static Marks {
        // Each is in the table, which a test holds.
        MARKS.iter().find(|marks| marks.database == self).unwrap_or(&MARKS[0])
    }
}

/// The databases in a container. `processes` are the command lines of what runs in it, where they are known: they tell the truth. What
/// does not run is known by its command, its image or what only that image has in its environment.
#[must_use]
pub fn databases(container: &Container, processes: Option<&[String]>) -> Vec<DatabaseFound> {
    let config = &container.raw()["Config"];
    let words = |key: &str| -> Vec<String> {
        let list = config[key].as_array().into_iter().flatten().filter_map(|word| word.as_str());
        list.map(str::to_owned).collect()
    };
    let command: Vec<String> = words("Entrypoint").into_iter().chain(words("Cmd")).collect();
    let environment = words("Env");
    let mut found: Vec<DatabaseFound> = MARKS
        .iter()
        .filter_map(|marks| {
            let because = marks.because(container.image(), &command, &environment, processes)?;
            let lines = processes.unwrap_or_default().iter().filter(|line| marks.runs_in(line));
            let mut said: Vec<String> = lines.flat_map(|line| line.split_whitespace().map(str::to_owned)).collect();
            said.extend(command.iter().cloned());
            Some(DatabaseFound {
                database: marks.database,
                because,
                folder: marks.folder(&said, &environment),
                in_memory: marks.database == Database::Redis && is_told_to_forget(&command),
            })
        })
        .collect();
    if found.iter().any(|one| one.database == Database::MariaDb) {
        // MariaDB's server has MySQL's name in older versions, and its images have some of the variables.
        found.retain(|one| one.database != Database::MySql);
    }
    let lines = processes.into_iter().flatten().chain(&command).chain(&environment);
    if let Some(path) = lines.filter_map(|line| within_java(line)).next()
        && !found.iter().any(|one| one.database == Database::Hsqldb)
    {
        let because = format!("it is told `{HSQLDB_FILE}…`");
        found.push(DatabaseFound { database: Database::Hsqldb, because, folder: Some(path), in_memory: false });
    }
    found
}

impl Marks {
    fn because(
        &self,
        image: &str,
        command: &[String],
        environment: &[String],
        processes: Option<&[String]>,
    ) -> Option<String> {
        if let Some(line) = processes.into_iter().flatten().find(|line| self.runs_in(line)) {
            let program = line.split_whitespace().next().map(base_name).unwrap_or_default();
            return Some(format!("{} runs in it", program.trim_end_matches(':')));
        }
        if let Some(program) =
            command.iter().flat_map(|word| word.split_whitespace()).find(|word| self.is_program(word))
        {
            return Some(format!("its command is {}", base_name(program)));
        }
        // It runs, and its server does not: whoever made it from such an image has another use for it.
        if processes.is_some() {
            return None;
        }
        if self.is_image(image) {
            return Some(format!("its image is {image}"));
        }
        let variable = self.variables.iter().find(|name| {
            environment.iter().any(|entry| entry.split_once('=').is_some_and(|(variable, _)| variable == **name))
        })?;
        Some(format!("its image sets {variable}"))
    }

    /// A process's line may be `postgres: checkpointer`, `/usr/sbin/mysqld --user=…`, `java -cp … org.hsqldb.server.Server …`, or be
    /// the shell that started one of them.
    fn runs_in(&self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        self.is_program(first) || base_name(first) == "java" && words.any(|word| self.is_program(word))
    }

    fn is_program(&self, word: &str) -> bool {
        self.programs.contains(&base_name(word).trim_end_matches(':'))
    }

    fn is_image(&self, image: &str) -> bool {
        let own = image.split('@').next().unwrap_or(image).rsplit('/').next().unwrap_or(image);
        let own = own.split(':').next().unwrap_or(own);
        let mut words = own.split(|letter: char| !letter.is_ascii_alphanumeric());
        words.next().is_some_and(|first| self.images.contains(&first)) && !words.any(|word| BESIDE.contains(&word))
    }

    fn folder(&self, said: &[String], environment: &[String]) -> Option<String> {
        let of_variable = |key: &str| environment.iter().find_map(|entry| entry.strip_prefix(key)?.strip_prefix('='));
        let of_argument = |key: &str| {
            let joined = said.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            joined.or_else(|| {
                let at = said.iter().position(|word| word == key)?;
                said.get(at + 1).map(String::as_str)
            })
        };
        let told = self.says_folder.iter().find_map(|key| of_argument(key).or_else(|| of_variable(key)));
        told.filter(|folder| folder.starts_with('/')).or(self.folder).map(str::to_owned)
    }
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// `redis-server --save "" …` without a log of what is written.
fn is_told_to_forget(command: &[String]) -> bool {
    let said = |key: &str| command.iter().position(|word| word == key).and_then(|at| command.get(at + 1));
    said("--save").is_some_and(|value| value.is_empty()) && said("--appendonly").is_none_or(|value| value != "yes")
}

/// The folder of the database in `jdbc:hsqldb:file:/data/bookmarks;shutdown=true`.
fn within_java(text: &str) -> Option<String> {
    let rest = text.split(HSQLDB_FILE).nth(1)?;
    let path = rest.split([';', ' ', '"', '\'']).next().unwrap_or_default();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    (folder.starts_with('/')).then(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(image: &str, command: &[&str], environment: &[&str]) -> Container {
        let config = json!({ "Image": image, "Entrypoint": Value::Null, "Cmd": command, "Env": environment });
        Container::of(json!({ "Config": config }))
    }

    fn names(container: &Container, processes: Option<&[&str]>) -> String {
        let processes: Option<Vec<String>> =
            processes.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect());
        let found = databases(container, processes.as_deref());
        found.iter().map(|one| one.database.name()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_engine_is_in_the_table_once() {
        for marks in &MARKS {
            assert_eq!(marks.database.name(), marks.name);
        }
    }

    #[test]
    fn what_runs_in_it_tells_the_truth_whatever_its_image_is_called() {
        let wordpress = container("my/site:3", &["/start.sh"], &[]);
        let processes =
            ["apache2 -D FOREGROUND", "/bin/sh /usr/bin/mysqld_safe", "/usr/sbin/mariadbd --datadir=/srv/my"];
        assert_eq!(names(&wordpress, Some(&processes)), "MariaDB");
        let found = databases(&wordpress, Some(&processes.map(str::to_owned)));
        assert_eq!((found[0].because.as_str(), found[0].folder.as_deref()), ("mariadbd runs in it", Some("/srv/my")));
        for (line, expected) in [
            ("postgres: checkpointer", "PostgreSQL"),
            ("/usr/lib/postgresql/16/bin/postgres -D /pg", "PostgreSQL"),
            ("redis-server *:6379", "Redis"),
            ("mysqld", "MySQL"),
            ("mongod --bind_ip_all", "MongoDB"),
            ("java -cp hsqldb.jar org.hsqldb.server.Server --database.0 file:/data/x", "HSQLDB"),
            ("java -Durl=jdbc:hsqldb:file:/data/bookmarks;shutdown=true -jar app.jar", "HSQLDB"),
            // Clients and look-alikes.
            ("psql -h db", ""),
            ("grep redis-server", ""),
            ("java -jar app.jar", ""),
        ] {
            assert_eq!(names(&wordpress, Some(&[line])), expected, "{line}");
        }
        // Such an image, put to another use.
        let dumping = container("postgres:16", &["pg_dumpall", "-h", "db"], &["PG_MAJOR=16"]);
        assert_eq!(names(&dumping, Some(&["pg_dumpall -h db"])), "");
    }

    #[test]
    fn one_that_does_not_run_is_known_by_its_command_image_or_environment() {
        for (image, expected) in [
            ("postgres", "PostgreSQL"),
            ("docker.io/library/postgres:16-alpine", "PostgreSQL"),
            ("ghcr.io:443/x/postgis:16@sha256:ab", "PostgreSQL"),
            ("bitnami/mariadb-galera:11", "MariaDB"),
            ("mysql:8", "MySQL"),
            ("valkey/valkey", "Redis"),
            ("mongo:7", "MongoDB"),
            ("prometheuscommunity/postgres-exporter", ""),
            ("postgrest/postgrest", ""),
            ("mongo-express", ""),
            ("phpmyadmin", ""),
            ("sha256:postgres", ""),
        ] {
            assert_eq!(names(&container(image, &["x"], &[]), None), expected, "{image}");
        }
        assert_eq!(names(&container("db:1", &["x"], &["PG_MAJOR=16", "PGDATA=/pg"]), None), "PostgreSQL");
        assert_eq!(names(&container("db:1", &["x"], &["MARIADB_VERSION=11", "MYSQL_VERSION=8"]), None), "MariaDB");
        // A client has the password too.
        assert_eq!(names(&container("app:1", &["x"], &["POSTGRES_PASSWORD=x", "MYSQL_PASSWORD=x"]), None), "");
        assert_eq!(names(&container("app:1", &["/bin/mongod", "--dbpath", "/m"], &[]), None), "MongoDB");
        let found = databases(&container("db:1", &["x"], &["PG_MAJOR=16", "PGDATA=/pg"]), None);
        assert_eq!(found[0].folder.as_deref(), Some("/pg"));
    }

    #[test]
    fn a_cache_that_was_told_to_forget_is_known() {
        let is = |command: &[&str]| databases(&container("redis:7", command, &[]), None)[0].in_memory;
        assert!(is(&["redis-server", "--save", "", "--appendonly", "no"]));
        assert!(!is(&["redis-server", "--save", "", "--appendonly", "yes"]));
        assert!(!is(&["redis-server"]));
    }
}
