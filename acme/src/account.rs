//! BORDER. The account at one authority: made once, kept on disk, restored at each order.
//!
//! Agrees to the authority's terms: the configuration file has said so before anything gets here.

use instant_acme::{Account, AccountCredentials, NewAccount};
use sealane_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::directory::Way;
use crate::order::Failure;
use crate::store::Store;

/// The account's file word for word.
#[derive(Deserialize, Serialize)]
struct Kept {
    directory: String,
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// The account that is on disk, or a new one that is then.
pub(crate) async fn open(
    config: &Config,
    store: &Store,
    way: &Way,
    now: Timestamp,
) -> Result<Account, Failure> {
    let kept = store.account(&config.directory, now);
    let kept = kept.and_then(|bytes| match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) => Some(kept),
        Err(error) => {
            store.set_account_aside(&config.directory, &error.to_string(), now);
            None
        }
    });
    match kept {
        Some(kept) => restore(kept, config, store, way).await,
        None => create(config, store, way).await,
    }
}

async fn restore(
    kept: Kept,
    config: &Config,
    store: &Store,
    way: &Way,
) -> Result<Account, Failure> {
    // Credentials are handed over whole, and the file may have to be written again.
    let again = serde_json::to_value(&kept.credentials).map_err(Failure::account)?;
    let account = Account::builder_with_http(Box::new(way.clone()))
        .from_credentials(kept.credentials)
        .await?;
    if kept.contact != config.contact {
        let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
        account.update_contacts(&contact).await?;
        let credentials = serde_json::from_value(again).map_err(Failure::account)?;
        keep(credentials, config, store)?;
        tracing::info!(directory = %config.directory, "ACME account has a new contact");
    }
    Ok(account)
}

async fn create(config: &Config, store: &Store, way: &Way) -> Result<Account, Failure> {
    let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = Account::builder_with_http(Box::new(way.clone()))
        .create(&wanted, config.directory.to_string(), None)
        .await?;
    keep(credentials, config, store)?;
    tracing::info!(directory = %config.directory, id = account.id(), "ACME account is new");
    Ok(account)
}

/// The authority does not know `account` any more: the next order makes a new one. Does nothing
/// when that has been done already.
pub(crate) fn forget(account: &Account, config: &Config, store: &Store, now: Timestamp) {
    #[derive(Deserialize)]
    struct Whose {
        credentials: WithId,
    }
    #[derive(Deserialize)]
    struct WithId {
        id: String,
    }
    let kept = store.account(&config.directory, now);
    let kept = kept.and_then(|bytes| serde_json::from_slice::<Whose>(&bytes).ok());
    if kept.is_some_and(|kept| kept.credentials.id == account.id()) {
        let why = "the authority has forgotten this account";
        store.set_account_aside(&config.directory, why, now);
    }
}

fn keep(credentials: AccountCredentials, config: &Config, store: &Store) -> Result<(), Failure> {
    let kept = Kept {
        directory: config.directory.to_string(),
        contact: config.contact.clone(),
        credentials,
    };
    let text = serde_json::to_vec_pretty(&kept).map_err(Failure::account)?;
    store
        .keep_account(&config.directory, &text)
        .map_err(Failure::Disk)
}
