// pgjdbc through the gateway: each check prints `ok <what holds>`; the first that fails ends the program.
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.Properties;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;

public class Script {
  static final String ENDLESS = "SELECT count(*) FROM generate_series(1, 100000000000)";
  static Connection connection;

  public static void main(String[] args) throws Exception {
    connection = connect(System.getenv("SALLYPORT_TOKEN"));
    ok("connects with a verified certificate and a token as password");

    try (Statement statement = connection.createStatement()) {
      statement.execute("SELECT 1; SELECT 2");
      expect(statement.getMoreResults() && statement.getResultSet() != null, "two results");
    }
    ok("simple statements");

    expect("Ada".equals(one("SELECT name FROM customers WHERE id = ?", 1)), "the name");
    ok("parameters");

    for (int number = 0; number < 12; number++) {
      byte[] bytes = {0, (byte) 255};
      try (PreparedStatement statement = connection.prepareStatement("SELECT ?::int8, ?::bytea, ?::timestamptz")) {
        statement.setLong(1, 1L << 40);
        statement.setBytes(2, bytes);
        statement.setObject(3, java.time.OffsetDateTime.parse("2024-02-29T00:00:00Z"));
        ResultSet row = statement.executeQuery();
        expect(row.next() && row.getLong(1) == 1L << 40 && java.util.Arrays.equals(row.getBytes(2), bytes), "the values");
      }
    }
    ok("binary parameters and results");

    try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM customers WHERE id = ?")) {
      for (int number = 0; number < 12; number++) {
        statement.setInt(1, 1 + number % 3);
        ResultSet row = statement.executeQuery();
        expect(row.next() && row.getInt(1) == 1 + number % 3, "the id");
      }
    }
    ok("prepared statements");

    refused("DELETE FROM orders");
    refused("SELECT * FROM payroll");
    expect("usable".equals(one("SELECT 'usable'")), "usable");
    ok("a refusal is 42501 and the connection stays usable");

    long before = orders();
    connection.setAutoCommit(false);
    run("INSERT INTO orders (customer_id, amount) VALUES (1, 1)");
    refused("DELETE FROM orders");
    expect("25P02".equals(stateOf("SELECT 1")), "an aborted transaction");
    connection.rollback();
    expect(orders() == before, "the insert is undone");
    ok("a refusal aborts the transaction");

    run("INSERT INTO orders (customer_id, amount) VALUES (1, 1)");
    Savepoint savepoint = connection.setSavepoint("b");
    refused("DELETE FROM orders");
    connection.rollback(savepoint);
    expect(orders() == before + 1, "the savepoint's work is there");
    connection.rollback();
    ok("a savepoint survives a refusal behind it");

    try (PreparedStatement batch = connection.prepareStatement("INSERT INTO orders (customer_id, amount) VALUES (?, 1)")) {
      for (int number = 0; number < 200; number++) {
        batch.setInt(1, 1 + number % 3);
        batch.addBatch();
      }
      expect(batch.executeBatch().length == 200 && orders() == before + 200, "the batch is in");
    }
    connection.rollback();
    connection.setAutoCommit(true);
    try (Statement batch = connection.createStatement()) {
      batch.addBatch("INSERT INTO orders (customer_id, amount) VALUES (1, 1)");
      batch.addBatch("DELETE FROM orders");
      batch.addBatch("INSERT INTO orders (customer_id, amount) VALUES (1, 1)");
      batch.executeBatch();
      throw new AssertionError("the batch was not refused");
    } catch (SQLException error) {
      expect("42501".equals(error.getSQLState()), "42501");
    }
    expect(orders() == before, "nothing of the batch is kept");
    ok("a refusal in a pipeline undoes what stood before it");

    var copy = connection.unwrap(PGConnection.class).getCopyAPI();
    StringWriter out = new StringWriter();
    copy.copyOut("COPY (SELECT id, name FROM customers ORDER BY id) TO STDOUT", out);
    expect(out.toString().startsWith("1\tAda\n"), "the rows");
    ok("copy out");

    connection.setAutoCommit(false);
    String lines = "1\t5\n".repeat(1000);
    expect(copy.copyIn("COPY orders (customer_id, amount) FROM STDIN", new StringReader(lines)) == 1000, "1000 rows");
    expect(orders() == before + 1000, "the rows are in");
    connection.rollback();
    ok("copy in");

    var binary = new ByteArrayOutputStream();
    copy.copyOut("COPY customers (id, name) TO STDOUT BINARY", binary);
    var rows = new ByteArrayInputStream(binary.toByteArray());
    expect(copy.copyIn("COPY arrivals FROM STDIN BINARY", rows) == 3, "3 rows");
    expect("Ada".equals(one("SELECT name FROM arrivals WHERE id = ?", 1)), "the name");
    connection.rollback();
    ok("binary copy out and in again");

    try (Statement statement = connection.createStatement()) {
      statement.setFetchSize(2);
      ResultSet ids = statement.executeQuery("SELECT id FROM customers ORDER BY id");
      for (int id = 1; id <= 3; id++) expect(ids.next() && ids.getInt(1) == id, "the id");
    }
    connection.rollback();
    connection.setAutoCommit(true);
    ok("cursors");

    var timer = Executors.newSingleThreadScheduledExecutor();
    try (Statement statement = connection.createStatement()) {
      timer.schedule(() -> { statement.cancel(); return null; }, 300, TimeUnit.MILLISECONDS);
      statement.execute(ENDLESS);
      throw new AssertionError("not cancelled");
    } catch (SQLException error) {
      expect("57014".equals(error.getSQLState()), "57014");
    }
    timer.shutdown();
    expect("1".equals(one("SELECT 1")), "usable after the cancel");
    ok("cancel");

    connection.close();
    try {
      connect("not-a-token");
      throw new AssertionError("a wrong token was let in");
    } catch (PSQLException error) {
      expect(error.getSQLState().startsWith("28") && !error.getMessage().contains("not-a-token"), "a refusal at login");
    }
    ok("a wrong token is refused");
  }

  static Connection connect(String token) throws SQLException {
    Properties settings = new Properties();
    settings.setProperty("user", System.getenv("SALLYPORT_USER"));
    settings.setProperty("password", token);
    settings.setProperty("sslmode", "verify-full");
    settings.setProperty("sslrootcert", System.getenv("SALLYPORT_CA"));
    String place = System.getenv("SALLYPORT_HOST") + ":" + System.getenv("SALLYPORT_PORT");
    return DriverManager.getConnection("jdbc:postgresql://" + place + "/" + System.getenv("SALLYPORT_DATABASE"), settings);
  }

  static String one(String sql, Object... values) throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      for (int at = 0; at < values.length; at++) statement.setObject(at + 1, values[at]);
      ResultSet row = statement.executeQuery();
      expect(row.next(), "a row");
      return row.getString(1);
    }
  }

  static long orders() throws SQLException {
    return Long.parseLong(one("SELECT count(*) FROM orders"));
  }

  static void run(String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.execute(sql);
    }
  }

  static String stateOf(String sql) {
    try {
      run(sql);
      return "00000";
    } catch (SQLException error) {
      return error.getSQLState();
    }
  }

  static void refused(String sql) {
    expect("42501".equals(stateOf(sql)), "refused: " + sql);
  }

  static void expect(boolean holds, String what) {
    if (!holds) throw new AssertionError("does not hold: " + what);
  }

  static void ok(String what) {
    System.out.println("ok " + what);
  }
}
