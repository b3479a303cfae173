/** Rows of token ids from JSON, JSON lines or CSV: `{"input_ids": [5, 9, 3], "label": "good"}`, or columns of them. */

import { DataError } from "../errors.js";

const IDS = ["input_ids", "tokens", "ids"];
const LABEL = "label";

/** @typedef {{ids: number[], label: string | number | null}} TokenRow */

/** @param {string} text @param {string} name of the file @returns {TokenRow[]} */
export function readRows(text, name) {
  const rows = name.toLowerCase().endsWith(".csv") ? csvRows(text) : jsonRows(text);
  return rows.map((row, number) => {
    const column = IDS.find((key) => row[key] !== undefined);
    const found = column === undefined ? undefined : row[column];
    const ids = typeof found === "string" ? found.split(/[\s,;[\]]+/).filter(Boolean).map(Number) : found;
    if (!Array.isArray(ids) || !ids.length || !ids.every((id) => Number.isSafeInteger(id) && id >= 0)) {
      throw new DataError(
        `row ${number + 1} of ${name} has no token ids; give a column ${IDS[0]} of whole numbers: a page has no tokenizer`,
      );
    }
    return { ids, label: row[LABEL] ?? null };
  });
}

/** @param {string} text @returns {Record<string, any>[]} */
function jsonRows(text) {
  try {
    const whole = JSON.parse(text);
    if (Array.isArray(whole)) return whole;
    const columns = Object.keys(whole);
    if (!columns.length || !Array.isArray(whole[columns[0]])) return [whole];
    return whole[columns[0]].map((/** @type {any} */ _, /** @type {number} */ i) =>
      Object.fromEntries(columns.map((key) => [key, whole[key][i]])),
    );
  } catch (error) {
    try {
      return text.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
    } catch {
      throw new DataError(`the file is neither JSON nor JSON lines (${/** @type {Error} */ (error).message})`);
    }
  }
}

/** @param {string} text RFC 4180 @returns {Record<string, any>[]} */
function csvRows(text) {
  /** @type {string[][]} */
  const lines = [[]];
  const field = /("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n|$)/gy;
  for (let found = field.exec(text); found && field.lastIndex <= text.length; found = field.exec(text)) {
    const [, raw, end] = found;
    lines[lines.length - 1].push(raw.startsWith('"') ? raw.slice(1, -1).replaceAll('""', '"') : raw);
    if (field.lastIndex >= text.length) break;
    if (end !== ",") lines.push([]);
  }
  const [header, ...rows] = lines.filter((line) => line.length > 1 || line[0]);
  if (!header || !rows.length) throw new DataError("the CSV file has no rows beneath its header");
  return rows.map((row) => Object.fromEntries(header.map((key, i) => [key.trim(), row[i]])));
}
