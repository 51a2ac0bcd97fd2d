-- Gives a refusal by the edge the form that its caller reads: google.rpc.Status in the headers of gRPC and gRPC-web,
-- in JSON on REST, OpenAI's error on the OpenAI API, where it reshapes the services' failures too. Answers that succeed
-- pass untouched; a body is read only where it is an error.

-- By the beginning of Envoy's response code details: gRPC's code, the HTTP status, the published reason, and words of
-- ours where Envoy's are not for callers. The first match counts.
local REFUSALS = {
  {"jwt_authn_access_denied{Jwt_is_missing}", 16, 401, "IDENTITY_MISSING", "no token was sent"},
  {"jwt_authn_access_denied", 16, 401, "IDENTITY_INVALID"},
  {"local_rate_limited", 8, 429, "QUOTA_EXHAUSTED", "too many calls by this subject"},
  {"request_payload_too_large", 3, 413, "TOO_LARGE", "the body is larger than the edge takes"},
  {"body_size_limit", 3, 413, "TOO_LARGE", "the body is larger than the edge takes"},
  {"route_not_found", 12, 404, "METHOD_NOT_FOUND", "the edge offers nothing at this path"},
  {"overload", 14, 503, "OVERLOADED", "the edge takes no more work now"},
  {"upstream_reset_before_response_started{overflow", 14, 503, "OVERLOADED", "the service takes no more work now"},
  {"no_healthy_upstream", 14, 503, "PEER_UNAVAILABLE", "the service does not answer"},
  {"upstream_reset_", 14, 503, "PEER_UNAVAILABLE", "the service does not answer"},
  {"stream_idle_timeout", 4, 504, "DEADLINE_EXCEEDED", "nothing came for too long"},
  {"request_header_timeout", 4, 408, "DEADLINE_EXCEEDED", "the request took too long to arrive"},
}
-- The rest, by HTTP status.
local BY_STATUS = {
  [400] = {"", 3, 400, "MALFORMED_MESSAGE"},
  [404] = {"", 12, 404, "METHOD_NOT_FOUND", "the edge offers nothing at this path"},
  [405] = {"", 12, 405, "METHOD_NOT_FOUND", "the edge does not offer this method here"},
  [413] = {"", 3, 413, "TOO_LARGE", "the body is larger than the edge takes"},
  [431] = {"", 3, 431, "TOO_LARGE", "the headers are larger than the edge takes"},
  [503] = {"", 14, 503, "PEER_UNAVAILABLE", "the service does not answer"},
  [504] = {"", 4, 504, "DEADLINE_EXCEEDED", "the time is used up"},
}
local FAULT = {"", 13, 500, "INTERNAL_ERROR", "internal error"}

local OPENAI_TYPES = {
  [400] = "invalid_request_error", [401] = "authentication_error", [403] = "permission_error",
  [404] = "invalid_request_error", [405] = "invalid_request_error", [413] = "invalid_request_error",
  [429] = "rate_limit_error",
}

local function starts(text, beginning)
  return text:sub(1, #beginning) == beginning
end

-- Protocol buffers, as much as google.rpc.Status needs: varints and length-delimited fields.
local function varint(number)
  local bytes = ""
  while number > 127 do
    bytes = bytes .. string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  return bytes .. string.char(number)
end

local function field(number, bytes)
  return string.char(number * 8 + 2) .. varint(#bytes) .. bytes
end

local function quoted(text)
  return '"' .. text:gsub('[%c\\"]', function(c) return string.format("\\u%04x", c:byte()) end) .. '"'
end

-- The details of a refusal: each its type, its bytes, and its JSON without braces.
local function details_of(refusal, retry_after_s)
  local reason, quota = refusal[4], "calls_per_second"
  local info, json = field(1, reason) .. field(2, "ragmesh"), '"reason":' .. quoted(reason) .. ',"domain":"ragmesh"'
  if reason ~= "QUOTA_EXHAUSTED" then return {{"ErrorInfo", info, json .. ',"metadata":{}'}} end
  local text = refusal[5]
  return {
    {"ErrorInfo", info .. field(3, field(1, "quota") .. field(2, quota)), json .. ',"metadata":{"quota":"' .. quota .. '"}'},
    {"RetryInfo", field(1, "\8" .. varint(retry_after_s)), '"retryDelay":"' .. retry_after_s .. 's"'},
    {"QuotaFailure", field(1, field(1, quota) .. field(2, text)),
     '"violations":[{"subject":"' .. quota .. '","description":' .. quoted(text) .. '}]'},
  }
end

local function status_bytes(code, message, details)
  local bytes = "\8" .. varint(code) .. field(2, message)
  for _, detail in ipairs(details) do
    bytes = bytes .. field(3, field(1, "type.googleapis.com/google.rpc." .. detail[1]) .. field(2, detail[2]))
  end
  return bytes
end

local function status_json(code, message, details)
  local parts = {}
  for _, detail in ipairs(details) do
    table.insert(parts, '{"@type":"type.googleapis.com/google.rpc.' .. detail[1] .. '",' .. detail[3] .. '}')
  end
  return '{"code":' .. code .. ',"message":' .. quoted(message) .. ',"details":[' .. table.concat(parts, ",") .. ']}'
end

-- Strings are JSON already, with their quotes, or "null".
local function openai_json(status, message, param, code)
  local type = OPENAI_TYPES[status] or "server_error"
  return '{"error":{"message":' .. message .. ',"type":"' .. type .. '","param":' .. param .. ',"code":' .. code .. '}}'
end

-- A string of a JSON text, still quoted and escaped; "null" where there is none of that name.
local function json_string(text, name)
  local _, first = text:find('"' .. name .. '"%s*:%s*"')
  local at = first and first + 1
  while at and at <= #text do
    local c = text:sub(at, at)
    if c == '"' then return text:sub(first, at) end
    at = at + (c == "\\" and 2 or 1)
  end
  return "null"
end

local function percent_encoded(text)
  return (text:gsub("[^ -$&-~]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function body_text(handle)
  local body = handle:body(true)
  return body:length() > 0 and body:getBytes(0, body:length()) or ""
end

local function send_json(handle, status, text)
  local length = handle:body(true):setBytes(text)
  local headers = handle:headers()  -- waiting for the body makes those of before unusable
  headers:replace(":status", tostring(status))
  headers:replace("content-type", "application/json")
  headers:replace("content-length", tostring(length))
  for _, name in ipairs({"grpc-status", "grpc-message", "grpc-status-details-bin"}) do headers:remove(name) end
end

local function send_grpc(handle, code, message, details)
  local headers = handle:headers()
  headers:replace(":status", "200")
  headers:replace("grpc-status", tostring(code))
  headers:replace("grpc-message", percent_encoded(message))
  headers:replace("grpc-status-details-bin", handle:base64Escape(status_bytes(code, message, details)))
end

local function refusal_for(cause, status)
  for _, refusal in ipairs(REFUSALS) do
    if starts(cause, refusal[1]) then return refusal end
  end
  return BY_STATUS[status] or FAULT
end

-- Envoy's own words, for refusals that have none of ours: why a token or a body is not valid.
local function words(handle, refusal, grpc)
  local text = refusal[5] or (grpc and handle:headers():get("grpc-message")) or body_text(handle)
  -- They may repeat what the caller sent, which may be no UTF-8.
  return text ~= "" and text:sub(1, 256):gsub("[\128-\255]", "?") or "refused by the edge"
end

local function refuse(handle, surface, cause, status)
  local refusal = refusal_for(cause, status)
  local code, http, reason = refusal[2], refusal[3], refusal[4]
  local grpc = surface == "grpc" or surface == "grpc-web"
  local message = words(handle, refusal, grpc)
  local retry_after_s = tonumber(handle:headers():get("retry-after") or 1)
  local details = details_of(refusal, retry_after_s)
  if grpc then
    send_grpc(handle, code, message, details)
  elseif surface == "openai" then
    send_json(handle, http, openai_json(http, quoted(message), "null", quoted(reason)))
  else
    send_json(handle, http, status_json(code, message, details))
  end
end

function envoy_on_request(handle)
  local kind = handle:headers():get("content-type") or ""
  local surface = handle:metadata():get("surface") or "rest"
  if starts(kind, "application/grpc-web") then
    surface = "grpc-web"
  elseif starts(kind, "application/grpc") then
    surface = "grpc"
  end
  handle:streamInfo():dynamicMetadata():set("ragmesh.edge", "surface", surface)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(":status"))
  local cause = headers:get("x-ragmesh-refusal")
  local known = handle:streamInfo():dynamicMetadata():get("ragmesh.edge")
  local surface = known and known["surface"] or "rest"
  if cause then
    headers:remove("x-ragmesh-refusal")
    refuse(handle, surface, cause, status)
  elseif surface == "openai" and status >= 400 then
    local text = body_text(handle)
    local error = openai_json(status, json_string(text, "message"), json_string(text, "param"), json_string(text, "reason"))
    send_json(handle, status, error)
  end
end
