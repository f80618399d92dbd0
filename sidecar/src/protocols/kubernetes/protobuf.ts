/**
 * Bodies in Kubernetes' protobuf form, as far as rules ask about them: kubectl and controllers write built-in kinds in
 * it. The fields are those of the API's own .proto files, whose numbers never change; all others are passed over.
 */

type Shape = {
  readonly [field: number]: readonly [name: string, shape: Shape | "text" | "flag" | "any", list?: "list"];
};

const capabilities: Shape = { 1: ["add", "text", "list"] };
const windows = (field: number): Shape => ({ [field]: ["windowsOptions", { 4: ["hostProcess", "flag"] }] });
const securityContext: Shape = {
  1: ["capabilities", capabilities],
  2: ["privileged", "flag"],
  ...windows(10),
};
const container: Shape = {
  1: ["name", "text"],
  2: ["image", "text"],
  15: ["securityContext", securityContext],
};
const ephemeral: Shape = { 1: ["common", container], 2: ["targetContainerName", "text"] };
const volume: Shape = { 2: ["source", { 1: ["hostPath", "any"] }] };
const podSpec: Shape = {
  1: ["volumes", volume, "list"],
  2: ["containers", container, "list"],
  11: ["hostNetwork", "flag"],
  12: ["hostPID", "flag"],
  13: ["hostIPC", "flag"],
  14: ["securityContext", windows(8)],
  20: ["initContainers", container, "list"],
  34: ["ephemeralContainers", ephemeral, "list"],
};
const template: Shape = { 2: ["spec", podSpec] };
const jobSpec: Shape = { 6: ["template", template] };
const templated = (field: number): Shape => ({ 2: ["spec", { [field]: ["template", template] }] });
const access: Shape = {
  1: ["namespace", "text"],
  2: ["verb", "text"],
  3: ["group", "text"],
  4: ["version", "text"],
  5: ["resource", "text"],
  6: ["subresource", "text"],
  7: ["name", "text"],
};

const shapes: ReadonlyMap<string, Shape> = new Map<string, Shape>([
  ["v1/Pod", { 2: ["spec", podSpec] }],
  ["v1/PodTemplate", { 2: ["template", template] }],
  ["v1/ReplicationController", templated(3)],
  ["apps/v1/Deployment", templated(3)],
  ["apps/v1/ReplicaSet", templated(3)],
  ["apps/v1/StatefulSet", templated(3)],
  ["apps/v1/DaemonSet", templated(2)],
  ["batch/v1/Job", { 2: ["spec", jobSpec] }],
  ["batch/v1/CronJob", { 2: ["spec", { 5: ["jobTemplate", { 2: ["spec", jobSpec] }] }] }],
  [
    "v1/PersistentVolume",
    { 2: ["spec", { 2: ["source", { 3: ["hostPath", "any"], 20: ["local", "any"] }] }] },
  ],
  ["v1/Secret", { 3: ["type", "text"] }],
  [
    "authorization.k8s.io/v1/SelfSubjectAccessReview",
    {
      2: [
        "spec",
        {
          1: ["resourceAttributes", access],
          2: ["nonResourceAttributes", { 1: ["path", "text"], 2: ["verb", "text"] }],
        },
      ],
    },
  ],
]);

/** Kinds that hold a pod's template in another form, which is not read here. */
const unread = new Set(["ControllerRevision"]);

const magic = Buffer.from([0x6b, 0x38, 0x73, 0x00]);
const envelope: Shape = {
  1: ["type", { 1: ["apiVersion", "text"], 2: ["kind", "text"] }],
  2: ["raw", "any"],
  3: ["encoding", "text"],
};

/** What rules ask about an object; an empty one for kinds that hold nothing of it; undefined where it cannot be read. */
export function readProtobuf(body: Buffer): unknown {
  if (!body.subarray(0, 4).equals(magic)) return undefined;
  const outer = read(body.subarray(4), envelope, 0);
  if (outer === undefined || (outer.encoding ?? "") !== "") return undefined;
  const { apiVersion, kind } = (outer.type ?? {}) as { apiVersion?: unknown; kind?: unknown };
  if (typeof apiVersion !== "string" || typeof kind !== "string") return undefined;
  // What does not say its kind is read as the kind that the path names.
  if (apiVersion === "" || kind === "") return undefined;
  if (unread.has(kind)) return undefined;
  const shape = shapes.get(`${apiVersion}/${kind}`);
  // A kind that may hold a pod, in a version whose fields are not known here.
  if (shape === undefined)
    return [...shapes.keys()].some((known) => known.endsWith(`/${kind}`)) ? undefined : {};
  const { raw } = outer;
  return Buffer.isBuffer(raw) ? read(raw, shape, 0) : {};
}

type Fields = Record<string, unknown>;

/** Reads the fields of a shape; undefined where the bytes are not a message. */
function read(bytes: Buffer, shape: Shape, depth: number): Fields | undefined {
  const found: Fields = {};
  let at = 0;
  const varint = (): number | undefined => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = bytes[at];
      if (byte === undefined) return undefined;
      at += 1;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return undefined;
  };
  while (at < bytes.length) {
    const key = varint();
    // Readers cut longer numbers to 32 bits, each in its way.
    if (key === undefined || key >= 2 ** 32 || depth > 20) return undefined;
    const known = shape[Math.floor(key / 8)];
    const wire = key % 8;
    if (wire === 0) {
      const value = varint();
      if (value === undefined) return undefined;
      if (known?.[1] === "flag") found[known[0]] = value !== 0;
    } else if (wire === 1 || wire === 5) at += wire === 1 ? 8 : 4;
    else if (wire === 2) {
      const length = varint();
      if (length === undefined || at + length > bytes.length) return undefined;
      const part = bytes.subarray(at, at + length);
      at += length;
      if (known === undefined) continue;
      const [name, type, list] = known;
      // A message that is given twice is one with the fields of both, to a server: here it cannot be read.
      if (list === undefined && name in found && typeof type === "object") return undefined;
      const value =
        type === "text"
          ? part.toString("utf8")
          : type === "any"
            ? part
            : type === "flag"
              ? undefined
              : read(part, type, depth + 1);
      if (value === undefined) return undefined;
      if (list === undefined) found[name] = value;
      else found[name] = [...((found[name] as unknown[] | undefined) ?? []), value];
    } else return undefined;
    if (at > bytes.length) return undefined;
  }
  return found;
}
