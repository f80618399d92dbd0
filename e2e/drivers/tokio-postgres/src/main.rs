//! tokio-postgres through the gateway: each check prints `ok <what holds>`; the first that fails ends the program.
use std::{env, error::Error, fs::File, io::BufReader, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::try_join3, SinkExt, TryStreamExt};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::{binary_copy::BinaryCopyInWriter, error::SqlState, types::Type, Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 100000000000)";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut client = connect(&env::var("SALLYPORT_TOKEN")?).await?;
    ok("connects with a verified certificate and a token as password");

    let messages = client.simple_query("SELECT 1; SELECT 2").await?;
    let rows = messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
    assert_eq!(rows.count(), 2);
    ok("simple statements");

    let row = client.query_one("SELECT name FROM customers WHERE id = $1", &[&1i32]).await?;
    assert_eq!(row.get::<_, String>(0), "Ada");
    ok("parameters");

    let sent: (bool, i64, Vec<u8>, Vec<i32>) = (true, 1 << 40, vec![0, 255], vec![1, 2, 3]);
    let row = client
        .query_one("SELECT $1::bool, $2::int8, $3::bytea, $4::int[]", &[&sent.0, &sent.1, &sent.2, &sent.3])
        .await?;
    assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), sent);
    ok("binary parameters and results");

    let by_id = client.prepare("SELECT id FROM customers WHERE id = $1").await?;
    for number in 0..7i32 {
        let id = 1 + number % 3;
        assert_eq!(client.query_one(&by_id, &[&id]).await?.get::<_, i32>(0), id);
    }
    ok("prepared statements");

    refused(&client, "DELETE FROM orders").await;
    refused(&client, "SELECT * FROM payroll").await;
    assert_eq!(client.query_one("SELECT 'usable'", &[]).await?.get::<_, &str>(0), "usable");
    ok("a refusal is 42501 and the connection stays usable");

    let before = count(&client).await?;
    client.batch_execute("BEGIN; INSERT INTO orders (customer_id, amount) VALUES (1, 1)").await?;
    refused(&client, "DELETE FROM orders").await;
    let error = client.execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    client.batch_execute("COMMIT").await?;
    assert_eq!(count(&client).await?, before);
    ok("a refusal aborts the transaction");

    let mut outer = client.transaction().await?;
    outer.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)", &[]).await?;
    let inner = outer.transaction().await?;
    refused(inner.client(), "DELETE FROM orders").await;
    inner.rollback().await?;
    assert_eq!(outer.query_one("SELECT count(*) FROM orders", &[]).await?.get::<_, i64>(0), before + 1);
    outer.rollback().await?;
    ok("a savepoint survives a refusal behind it");

    let (a, b, c) = (client.prepare("SELECT 1"), client.prepare("SELECT 2"), client.prepare("SELECT 3"));
    let (a, b, c) = try_join3(a, b, c).await?;
    let rows = try_join3(client.query_one(&a, &[]), client.query_one(&b, &[]), client.query_one(&c, &[])).await?;
    assert_eq!((rows.0.get::<_, i32>(0), rows.1.get::<_, i32>(0), rows.2.get::<_, i32>(0)), (1, 2, 3));
    let middle = client.execute("DELETE FROM orders", &[]);
    let (first, refusal, third) = tokio::join!(client.query_one(&a, &[]), middle, client.query_one(&c, &[]));
    assert_eq!((first?.get::<_, i32>(0), third?.get::<_, i32>(0)), (1, 3));
    assert_eq!(refusal.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    ok("a refusal in a pipeline answers its own statement only");

    let out = client.copy_out("COPY (SELECT id, name FROM customers ORDER BY id) TO STDOUT").await?;
    let chunks: Vec<Bytes> = out.try_collect().await?;
    assert!(chunks.concat().starts_with(b"1\tAda\n"));
    ok("copy out");

    let transaction = client.transaction().await?;
    let into = "COPY orders (customer_id, amount) FROM STDIN";
    {
        let mut sink = pin!(transaction.copy_in::<_, Bytes>(into).await?);
        for number in 0..500 {
            sink.send(Bytes::from(format!("1\t{number}\n"))).await?;
        }
        sink.finish().await?;
        let sink = transaction.copy_in::<_, Bytes>("COPY customers (id, name) FROM STDIN BINARY").await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
        for number in 100..600i32 {
            writer.as_mut().write(&[&number, &"many"]).await?;
        }
        writer.finish().await?;
    }
    let row = transaction.query_one("SELECT count(*) FROM orders", &[]).await?;
    assert_eq!(row.get::<_, i64>(0), before + 500);
    let row = transaction.query_one("SELECT count(*) FROM customers WHERE name = 'many'", &[]).await?;
    assert_eq!(row.get::<_, i64>(0), 500);
    transaction.rollback().await?;
    ok("copy in");

    let out = client.copy_out("COPY customers (id, name) TO STDOUT BINARY").await?;
    let chunks: Vec<Bytes> = out.try_collect().await?;
    let transaction = client.transaction().await?;
    {
        let mut sink = pin!(transaction.copy_in::<_, Bytes>("COPY arrivals FROM STDIN BINARY").await?);
        sink.send(chunks.concat().into()).await?;
        sink.finish().await?;
    }
    let row = transaction.query_one("SELECT name FROM arrivals WHERE id = 1", &[]).await?;
    assert_eq!(row.get::<_, &str>(0), "Ada");
    transaction.rollback().await?;
    ok("binary copy out and in again");

    let token = client.cancel_token();
    let (outcome, ()) = tokio::join!(client.query_one(ENDLESS, &[]), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(tls().expect("a certificate authority")).await.expect("a cancel request");
    });
    assert_eq!(outcome.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(client.query_one("SELECT 1", &[]).await?.get::<_, i32>(0), 1);
    ok("cancel");

    let error = connect("not-a-token").await.err().expect("a refusal at login");
    let refusal = error.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code()).cloned();
    assert!(refusal.is_some_and(|code| code.code().starts_with("28")));
    assert!(!error.to_string().contains("not-a-token"));
    ok("a wrong token is refused");
    Ok(())
}

fn tls() -> Outcome<MakeRustlsConnect> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut BufReader::new(File::open(env::var("SALLYPORT_CA")?)?)) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn connect(token: &str) -> Outcome<Client> {
    let mut config = Config::new();
    config
        .host(env::var("SALLYPORT_HOST")?)
        .port(env::var("SALLYPORT_PORT")?.parse()?)
        .user(env::var("SALLYPORT_USER")?)
        .dbname(env::var("SALLYPORT_DATABASE")?)
        .password(token)
        .ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(tls()?).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn refused(client: &Client, statement: &str) {
    let error = client.execute(statement, &[]).await.expect_err(statement);
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error}");
    assert!(error.as_db_error().is_some_and(|error| !error.message().is_empty()));
}

async fn count(client: &Client) -> Outcome<i64> {
    Ok(client.query_one("SELECT count(*) FROM orders", &[]).await?.get(0))
}

fn ok(what: &str) {
    println!("ok {what}");
}
