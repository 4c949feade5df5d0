//! The command line: flags and verbs, each handed to the part that does it.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::admin_client::{AdminClient, Answer, query_value};
use crate::demo::{self, Mode, Ports};
use crate::run::{self, Ended};
use crate::service;
use crate::telemetry::{self, LogFormat};
use crate::upgrade::Program;
use crate::{config, dnssec, report};

#[derive(Debug, Parser)]
#[command(
    name = "sealane",
    version,
    about = "Edge proxy and GeoDNS server on one health map"
)]
struct Cli {
    /// What to log: tracing directives, e.g. `debug` or `info,sealane::access=off`.
    #[arg(long, global = true, env = "SEALANE_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How log lines are written.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve by a configuration file; it is read again when it changes, and on SIGHUP.
    Run(RunArgs),
    /// Say every mistake in a configuration file; exit code 0 when there is none.
    Check {
        file: PathBuf,
        /// Print the configuration with every default written out.
        #[arg(long)]
        effective: bool,
    },
    /// Print the configuration's JSON Schema, for editors.
    Schema,
    /// Three regions in this process, to try things out.
    Demo(DemoArgs),
    /// What a running Sealane thinks of its regions and endpoints.
    Status(AdminArgs),
    /// Where a client would be sent now, and why.
    Explain(ExplainArgs),
    /// Move a region (or an endpoint) out until `failback`.
    Failover(OrderArgs),
    /// Lift a failover or a drain.
    Failback(OrderArgs),
    /// Give a region (or an endpoint) no new work.
    Drain(OrderArgs),
    /// Keys of signed zones: make, list, roll over, retire them.
    Dnssec(dnssec::cli::Args),
    /// Exit code 0 when a running Sealane is ready: for container health checks.
    Health(AdminArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[arg(
        long,
        short,
        default_value = "/etc/sealane/sealane.yaml",
        env = "SEALANE_CONFIG"
    )]
    config: PathBuf,
    #[command(flatten)]
    serving: ServingArgs,
}

#[derive(Debug, Args)]
struct ServingArgs {
    /// Threads that serve HTTP, and as many that answer DNS, whatever `node.workers` says.
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// How long accepted requests may take to finish after SIGTERM, whatever `node.drain_limit`
    /// says.
    #[arg(long, value_parser = config::unit::duration, value_name = "DURATION")]
    drain: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct DemoArgs {
    #[command(subcommand)]
    order: Option<DemoOrder>,
    #[arg(long, default_value_t = 8080)]
    http: u16,
    #[arg(long, default_value_t = 8443)]
    https: u16,
    #[arg(long, default_value_t = 5300)]
    dns: u16,
    #[arg(long, default_value_t = 9900)]
    admin: u16,
    /// Port of the nine origins, on loopback addresses of their own (127.0.1.11 to 127.0.1.33).
    #[arg(long, default_value_t = demo::PORT_DEFAULT)]
    origins_port: u16,
    #[command(flatten)]
    serving: ServingArgs,
}

#[derive(Debug, Subcommand)]
enum DemoOrder {
    /// Make a region's origins fail, in a demo that runs in another terminal.
    RegionDown {
        region: String,
        /// Whether connections are refused, or accepted and never answered.
        #[arg(long, value_enum, default_value_t = Mode::Refused)]
        how: Mode,
        #[arg(long, default_value_t = demo::PORT_DEFAULT)]
        origins_port: u16,
    },
    /// Let a region's origins serve again.
    RegionUp {
        region: String,
        #[arg(long, default_value_t = demo::PORT_DEFAULT)]
        origins_port: u16,
    },
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// The admin API of the running Sealane.
    #[arg(
        long,
        default_value = "http://127.0.0.1:9900",
        env = "SEALANE_ADMIN",
        value_name = "URL"
    )]
    admin: String,
    /// A file that holds the bearer token; SEALANE_TOKEN may hold the token itself.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the API's JSON as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    #[command(flatten)]
    question: ExplainQuestion,
    /// The client's address.
    #[arg(long)]
    client: IpAddr,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ExplainQuestion {
    /// A name that DNS would be asked for.
    #[arg(long, value_name = "NAME")]
    dns: Option<String>,
    /// A URL that the proxy would be asked for.
    #[arg(long)]
    url: Option<String>,
}

#[derive(Debug, Args)]
struct OrderArgs {
    #[command(flatten)]
    target: OrderTarget,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Even where a pool is left without any usable region.
    #[arg(long)]
    force: bool,
    /// Kept with the order, and shown in `status`.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct OrderTarget {
    #[arg(long)]
    region: Option<String>,
    /// An endpoint's host name, or its address as the configuration has it.
    #[arg(long)]
    endpoint: Option<String>,
}

/// The program: parses arguments, does the verb, prints what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sealane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    telemetry::install_log(cli.log.as_deref(), cli.log_format).context("--log")?;
    match cli.verb {
        Verb::Run(RunArgs { config, serving }) => serve(
            |options| async move { run::run(options, |_| {}).await },
            config,
            &serving,
        ),
        Verb::Check { file, effective } => check(&file, effective),
        Verb::Schema => {
            println!("{}", serde_json::to_string_pretty(&config::schema())?);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Demo(args) => demo(args),
        Verb::Status(admin) => show(&admin, "/v1/status", report::status),
        Verb::Explain(args) => explain(&args),
        Verb::Failover(args) => order("/api/failover", &args),
        Verb::Failback(args) => order("/api/failback", &args),
        Verb::Drain(args) => order("/v1/drain", &args),
        Verb::Dnssec(args) => dnssec::cli::run(&args),
        Verb::Health(admin) => show(&admin, "/readyz", |_| String::new()),
    }
}

fn serve<F: Future<Output = anyhow::Result<Ended>>>(
    life: impl FnOnce(run::Options) -> F,
    config: PathBuf,
    serving: &ServingArgs,
) -> anyhow::Result<ExitCode> {
    let options = run::Options {
        config,
        workers: serving.workers,
        drain: serving.drain,
        admin_open: false,
        program: Program::of_this_process(),
        // Before the runtime, which opens descriptors of its own.
        activated: service::activated(),
    };
    let ended = runtime()?.block_on(life(options))?;
    match ended {
        Ended::Clean => tracing::info!("everything that was accepted has finished"),
        Ended::Cut(count) => tracing::warn!(count, "connections were cut at the drain's deadline"),
        Ended::Hurried => tracing::warn!("a second signal: ended at once"),
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("the runtime cannot be started")
}

fn check(file: &std::path::Path, effective: bool) -> anyhow::Result<ExitCode> {
    let env = |name: &str| std::env::var(name).ok();
    match config::load(file, &env, &mut sealane_model::IdBook::default()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            if effective {
                print!("{}", loaded.effective);
            } else {
                println!("{}: no mistakes", file.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            eprintln!("{mistakes}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let switch = |port, region: &str, mode| {
        println!("{}", runtime()?.block_on(demo::order(port, region, mode))?);
        Ok(ExitCode::SUCCESS)
    };
    let DemoArgs {
        order,
        http,
        https,
        dns,
        admin,
        origins_port,
        serving,
    } = args;
    match order {
        Some(DemoOrder::RegionDown {
            how: Mode::Serving, ..
        }) => {
            bail!("`--how serving` is `sealane demo region-up`")
        }
        Some(DemoOrder::RegionDown {
            region,
            how,
            origins_port,
        }) => switch(origins_port, &region, how),
        Some(DemoOrder::RegionUp {
            region,
            origins_port,
        }) => switch(origins_port, &region, Mode::Serving),
        None => {
            let ports = Ports {
                http,
                https,
                dns,
                admin,
                origins: origins_port,
            };
            serve(
                |options| demo::run(ports, options),
                PathBuf::new(),
                &serving,
            )
        }
    }
}

fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let ExplainQuestion { dns, url } = &args.question;
    let (key, value) = match (dns, url) {
        (Some(name), _) => ("dns", name),
        (None, Some(url)) => ("url", url),
        (None, None) => bail!("one of --dns and --url is needed"),
    };
    let path = format!(
        "/v1/explain?{key}={}&client={}",
        query_value(value),
        args.client
    );
    show(&args.admin, &path, report::explain)
}

fn order(path: &str, args: &OrderArgs) -> anyhow::Result<ExitCode> {
    let OrderTarget { region, endpoint } = &args.target;
    let Some(target) = region.as_ref().or(endpoint.as_ref()) else {
        bail!("one of --region and --endpoint is needed");
    };
    let mut body = json!({ "target": target, "dry_run": args.dry_run, "force": args.force });
    if let Some(reason) = &args.reason {
        body["reason"] = json!(reason);
    }
    let client = client(&args.admin)?;
    let answer = runtime()?.block_on(client.post(path, &body))?;
    print(&args.admin, &answer, report::order)
}

fn show(
    args: &AdminArgs,
    path: &str,
    in_words: fn(&serde_json::Value) -> String,
) -> anyhow::Result<ExitCode> {
    let client = client(args)?;
    let answer = runtime()?.block_on(client.get(path))?;
    print(args, &answer, in_words)
}

fn print(
    args: &AdminArgs,
    answer: &Answer,
    in_words: fn(&serde_json::Value) -> String,
) -> anyhow::Result<ExitCode> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(&answer.body)?);
    } else if answer.status.is_success() {
        print!("{}", in_words(&answer.body));
    } else {
        eprintln!("sealane: {}", report::refusal(answer.status, &answer.body));
    }
    let success = answer.status.is_success();
    Ok(if success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn client(args: &AdminArgs) -> anyhow::Result<AdminClient> {
    let token = match &args.token_file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("the token file {} cannot be read", file.display()))?;
            Some(text.trim().to_owned())
        }
        None => std::env::var("SEALANE_TOKEN").ok(),
    };
    AdminClient::new(&args.admin, token)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
