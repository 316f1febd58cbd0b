import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.delta.kernel.Scan;
import io.delta.kernel.ScanBuilder;
import io.delta.kernel.Snapshot;
import io.delta.kernel.SnapshotBuilder;
import io.delta.kernel.TableManager;
import io.delta.kernel.data.ColumnVector;
import io.delta.kernel.data.ColumnarBatch;
import io.delta.kernel.data.FilteredColumnarBatch;
import io.delta.kernel.data.MapValue;
import io.delta.kernel.data.Row;
import io.delta.kernel.defaults.engine.DefaultEngine;
import io.delta.kernel.engine.Engine;
import io.delta.kernel.engine.FileReadResult;
import io.delta.kernel.expressions.Column;
import io.delta.kernel.expressions.Literal;
import io.delta.kernel.expressions.Predicate;
import io.delta.kernel.internal.InternalScanFileUtils;
import io.delta.kernel.internal.data.ScanStateRow;
import io.delta.kernel.types.*;
import io.delta.kernel.utils.CloseableIterator;
import io.delta.kernel.utils.FileStatus;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.*;
import org.apache.hadoop.conf.Configuration;

/**
 * Reads tables with Delta Kernel. It answers the requests of serve.py, but for those
 * of the change data feed.
 */
public class Kernel {
  static final ObjectMapper JSON = new ObjectMapper();

  public static void main(String[] args) throws Exception {
    PrintStream out = new PrintStream(System.out, true, "UTF-8");
    System.setOut(System.err);
    Engine engine = DefaultEngine.create(new Configuration());
    out.println("{\"ready\": true, \"versions\": {\"kernel\": \"" + Scan.class.getPackage().getImplementationVersion() + "\"}}");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = in.readLine()) != null; ) {
      ObjectNode answer = JSON.createObjectNode();
      try {
        read(engine, JSON.readTree(line), answer);
      } catch (Throwable e) {
        answer = JSON.createObjectNode().put("error", String.valueOf(e));
      }
      out.println(JSON.writeValueAsString(answer));
    }
  }

  static void read(Engine engine, JsonNode request, ObjectNode answer) throws Exception {
    SnapshotBuilder builder = TableManager.loadSnapshot(request.get("path").asText());
    if (request.hasNonNull("version")) {
      builder = builder.atVersion(request.get("version").asLong());
    }
    if (request.hasNonNull("time")) {
      builder = builder.atTimestamp(Instant.parse(request.get("time").asText()).toEpochMilli(), builder.build(engine));
    }
    Snapshot snapshot = builder.build(engine);
    StructType columns = snapshot.getSchema(); // batches have physical names inside of structs
    if (request.path("row_ids").asBoolean()) {
      columns = columns.addMetadataColumn("_row_id", MetadataColumnSpec.ROW_ID)
          .addMetadataColumn("_row_commit_version", MetadataColumnSpec.ROW_COMMIT_VERSION);
    }
    List<String> lines = new ArrayList<>();
    if (request.has("where")) {
      for (JsonNode w : request.get("where")) {
        scan(engine, snapshot, columns, w, lines);
      }
    } else {
      scan(engine, snapshot, columns, null, lines);
    }
    MessageDigest sha = MessageDigest.getInstance("SHA-256");
    long sum = 0;
    for (String line : lines) {
      sum += ByteBuffer.wrap(sha.digest(line.getBytes(StandardCharsets.UTF_8))).getLong();
    }
    answer.put("rows", lines.size()).put("checksum", String.format("%016x", sum));
    if (request.path("lines").asBoolean()) {
      Collections.sort(lines);
      ArrayNode all = answer.putArray("lines");
      lines.forEach(all::add);
    }
  }

  /** Adds the rows that meet a condition, or all rows if that is null. */
  static void scan(Engine engine, Snapshot snapshot, StructType columns, JsonNode where, List<String> lines) throws Exception {
    ScanBuilder scans = snapshot.getScanBuilder().withReadSchema(columns);
    int column = -1; // of the condition, and what it has to hold
    Object wanted = null;
    if (where != null) {
      JsonNode value = where.get("value");
      String name = where.get("column").asText();
      column = columns.indexOf(name);
      wanted = value.isTextual() ? value.asText() : (Object) value.asLong();
      Literal literal = value.isTextual() ? Literal.ofString(value.asText())
          : columns.at(column).getDataType() instanceof IntegerType ? Literal.ofInt(value.asInt()) : Literal.ofLong(value.asLong());
      scans = scans.withFilter(new Predicate("=", new Column(name), literal));
    }
    Scan scan = scans.build();
    Row state = scan.getScanState(engine);
    StructType physical = ScanStateRow.getPhysicalDataReadSchema(state);
    try (CloseableIterator<FilteredColumnarBatch> files = scan.getScanFiles(engine)) {
      while (files.hasNext()) {
        try (CloseableIterator<Row> each = files.next().getRows()) {
          while (each.hasNext()) {
            Row file = each.next();
            FileStatus status = InternalScanFileUtils.getAddFileStatus(file);
            CloseableIterator<ColumnarBatch> data =
                engine.getParquetHandler().readParquetFiles(one(status), physical, Optional.empty()).map(FileReadResult::getData);
            try (CloseableIterator<FilteredColumnarBatch> logical = Scan.transformPhysicalData(engine, state, file, data)) {
              while (logical.hasNext()) {
                FilteredColumnarBatch filtered = logical.next();
                ColumnarBatch batch = filtered.getData();
                Optional<ColumnVector> selection = filtered.getSelectionVector();
                for (int i = 0; i < batch.getSize(); i++) {
                  if (selection.isPresent() && (selection.get().isNullAt(i) || !selection.get().getBoolean(i))) {
                    continue;
                  }
                  if (wanted != null && !wanted.equals(value(batch.getColumnVector(column), i))) {
                    continue; // what Kernel filters is files
                  }
                  lines.add(row(batch, i, columns));
                }
              }
            }
          }
        }
      }
    }
  }

  static CloseableIterator<FileStatus> one(FileStatus status) {
    Iterator<FileStatus> it = List.of(status).iterator();
    return new CloseableIterator<FileStatus>() {
      public boolean hasNext() { return it.hasNext(); }
      public FileStatus next() { return it.next(); }
      public void close() {}
    };
  }

  static Object value(ColumnVector v, int i) {
    if (v.isNullAt(i)) {
      return null;
    }
    if (v.getDataType() instanceof StringType) {
      return v.getString(i);
    }
    return v.getDataType() instanceof IntegerType ? (Object) (long) v.getInt(i) : (Object) v.getLong(i);
  }

  // Names sort by their bytes.
  static final Comparator<String> BYTES =
      (a, b) -> Arrays.compareUnsigned(a.getBytes(StandardCharsets.UTF_8), b.getBytes(StandardCharsets.UTF_8));

  static String row(ColumnarBatch batch, int i, StructType columns) {
    TreeMap<String, String> members = new TreeMap<>(BYTES);
    for (int c = 0; c < columns.length(); c++) {
      members.put(columns.at(c).getName(), cell(batch.getColumnVector(c), i, columns.at(c).getDataType()));
    }
    return object(members);
  }

  static String object(TreeMap<String, String> members) {
    StringJoiner joined = new StringJoiner(",", "{", "}");
    members.forEach((name, value) -> joined.add(text(name) + ":" + value));
    return joined.toString();
  }

  static String cell(ColumnVector v, int i, DataType t) {
    if (v.isNullAt(i)) {
      return "null";
    }
    if (t instanceof BooleanType) return String.valueOf(v.getBoolean(i));
    if (t instanceof ByteType) return String.valueOf(v.getByte(i));
    if (t instanceof ShortType) return String.valueOf(v.getShort(i));
    if (t instanceof IntegerType) return String.valueOf(v.getInt(i));
    if (t instanceof LongType) return String.valueOf(v.getLong(i));
    if (t instanceof FloatType) return number(v.getFloat(i));
    if (t instanceof DoubleType) return number(v.getDouble(i));
    if (t instanceof StringType) return text(v.getString(i));
    if (t instanceof BinaryType) return "\"x:" + HexFormat.of().formatHex(v.getBinary(i)) + "\"";
    if (t instanceof DateType) return "\"D:" + v.getInt(i) + "\"";
    if (t instanceof TimestampType || t instanceof TimestampNTZType) return "\"t:" + v.getLong(i) + "\"";
    if (t instanceof DecimalType) return decimal(v.getDecimal(i));
    if (t instanceof ArrayType) {
      ColumnVector elements = v.getArray(i).getElements();
      StringJoiner joined = new StringJoiner(",", "[", "]");
      for (int e = 0; e < v.getArray(i).getSize(); e++) {
        joined.add(cell(elements, e, ((ArrayType) t).getElementType()));
      }
      return joined.toString();
    }
    if (t instanceof MapType) {
      MapType type = (MapType) t;
      MapValue map = v.getMap(i);
      List<String[]> pairs = new ArrayList<>();
      for (int e = 0; e < map.getSize(); e++) {
        pairs.add(new String[] {cell(map.getKeys(), e, type.getKeyType()), cell(map.getValues(), e, type.getValueType())});
      }
      pairs.sort((a, b) -> BYTES.compare(a[0], b[0]));
      StringJoiner joined = new StringJoiner(",", "{\"m\":[", "]}");
      pairs.forEach(p -> joined.add("[" + p[0] + "," + p[1] + "]"));
      return joined.toString();
    }
    if (t instanceof StructType) {
      TreeMap<String, String> members = new TreeMap<>(BYTES);
      StructType struct = (StructType) t;
      for (int f = 0; f < struct.length(); f++) {
        members.put(struct.at(f).getName(), cell(v.getChild(f), i, struct.at(f).getDataType()));
      }
      return object(members);
    }
    throw new UnsupportedOperationException("no rule for type " + t);
  }

  static String number(double d) {
    return Double.isNaN(d) ? "\"f:nan\"" : String.format("\"f:%016x\"", Double.doubleToRawLongBits(d));
  }

  static String decimal(BigDecimal d) {
    BigDecimal plain = d.signum() == 0 ? BigDecimal.ZERO : d.stripTrailingZeros();
    return "\"d:" + (plain.scale() < 0 ? plain.setScale(0) : plain).toPlainString() + "\"";
  }

  static String text(String s) {
    StringBuilder b = new StringBuilder("\"");
    for (int i = 0; i < s.length(); i++) {
      char c = s.charAt(i);
      switch (c) {
        case '"': b.append("\\\""); break;
        case '\\': b.append("\\\\"); break;
        case '\b': b.append("\\b"); break;
        case '\f': b.append("\\f"); break;
        case '\n': b.append("\\n"); break;
        case '\r': b.append("\\r"); break;
        case '\t': b.append("\\t"); break;
        default:
          if (c < 0x20) b.append(String.format("\\u%04x", (int) c));
          else b.append(c);
      }
    }
    return b.append('"').toString();
  }
}
