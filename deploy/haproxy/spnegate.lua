-- Asks spnegate, over FastCGI as an authorizer, whether a request may pass; loaded by haproxy.cfg,
-- which shows how it is used:
--
--   http-request lua.spnegate if PROTECTED          answers a refusal itself; after a grant it sets
--                                                   txn.spnegate ("granted") and, from the answer,
--                                                   txn.spnegate_user, _type, _audit and _reply;
--                                                   without an answer txn.spnegate_trouble
--   path,lua.spnegate_path                          the path as the most lenient backend reads it
--   path,lua.spnegate_raw                           the same, but ".." left in
--
-- From the environment (haproxy.cfg sets it): SPNEGATE_SOCKET, the listener's path as it is seen
-- inside the chroot; SPNEGATE_PATIENCE, the time limit in seconds.
--
-- Whatever goes wrong in here, txn.spnegate is not set, and haproxy.cfg lets nothing pass without it.

local socket_path = os.getenv("SPNEGATE_SOCKET")
local patience = tonumber(os.getenv("SPNEGATE_PATIENCE"))

local BEGIN, END, PARAMS, STDOUT, STDERR = 1, 3, 4, 6, 7
local AUTHORIZER = 2
local CONTENT_MAX = 65535
local ANSWER_MAX = 65536
local PIECE_MAX = 16

-- ---- the question

local function record(kind, content)
  return string.pack(">BBI2I2BB", 1, kind, 1, #content, 0, 0) .. content
end

local function length(text)
  return #text < 128 and string.char(#text) or string.pack(">I4", #text | 0x80000000)
end

-- params_of(txn): the parameters of the FastCGI request. Of the client's headers only the two that
-- decide go along; two Authorization headers become one bad one.
local function params_of(txn)
  local headers = txn.http:req_get_headers()
  local authorization = headers["authorization"]
  local params = {
    SERVER_SOFTWARE = "haproxy",
    SERVER_PROTOCOL = "HTTP/" .. txn.sf:req_ver(),
    REQUEST_METHOD = txn.sf:method(),
    REQUEST_URI = txn.sf:pathq(),
    HTTP_HOST = headers["host"] and headers["host"][0],
    REMOTE_ADDR = txn.sf:src(),
    REMOTE_PORT = txn.sf:src_port(),
    HTTPS = txn.sf:ssl_fc() == "1" and "on" or nil,
  }
  if authorization then
    local values = { authorization[0] }
    for i = 1, #authorization do
      values[#values + 1] = authorization[i]
    end
    params.HTTP_AUTHORIZATION = table.concat(values, ", ")
  end
  return params
end

local function question(params)
  local parts = {}
  for parameter, value in pairs(params) do
    parts[#parts + 1] = length(parameter) .. length(value) .. parameter .. value
  end
  local content = table.concat(parts)
  local out = { record(BEGIN, string.pack(">I2BI5", AUTHORIZER, 0, 0)) }
  for at = 1, #content, CONTENT_MAX do
    out[#out + 1] = record(PARAMS, content:sub(at, at + CONTENT_MAX - 1))
  end
  out[#out + 1] = record(PARAMS, "")
  return table.concat(out)
end

-- ---- the answer

-- exchange(socket, bytes): the authorizer's whole standard output; raises an error for anything but
-- well-formed records that end with a successful END_REQUEST, all in time.
local function exchange(socket, bytes)
  local started = core.now()

  -- In pieces: HAProxy's time limit begins anew with each byte, ours does not.
  local function take(count)
    local content = ""
    while #content < count do
      local now = core.now()
      local left = patience - (now.sec - started.sec) - (now.usec - started.usec) / 1000000
      if left <= 0 then
        error("no answer in time", 0)
      end
      socket:settimeout(math.ceil(left))
      local piece = socket:receive(math.min(count - #content, PIECE_MAX))
      if not piece then
        error("no whole answer", 0)
      end
      content = content .. piece
    end
    return content
  end

  socket:settimeout(patience)
  if not socket:connect(socket_path) then
    error("cannot connect to " .. socket_path, 0)
  end
  if socket:send(bytes) ~= #bytes then
    error("cannot send", 0)
  end
  local out, size = {}, 0
  while true do
    local version, kind, id, count, padding = string.unpack(">BBI2I2B", take(8))
    if version ~= 1 or id ~= 1 then
      error("not a FastCGI record", 0)
    end
    local content = take(count)
    take(padding)
    size = size + count
    if size > ANSWER_MAX then
      error("the answer is too long", 0)
    elseif kind == STDOUT then
      out[#out + 1] = content
    elseif kind == END then
      if #content ~= 8 or content:sub(1, 5) ~= "\0\0\0\0\0" then
        error("the request ended badly", 0)
      end
      return table.concat(out)
    elseif kind ~= STDERR then
      error("a record of type " .. kind, 0)
    end
  end
end

-- parsed(text): status, headers (by lower-case field name) and body of a whole answer. An answer that
-- is not exactly of the form that spnegate gives is an error.
local function parsed(text)
  local head, body = text:match("^(.-\r\n)\r\n(.*)$")
  if not head then
    error("the answer's header is cut", 0)
  end
  local status = tonumber(head:match("^Status: (%d%d%d) [^\r\n]*\r\n"))
  if not status then
    error("the answer does not begin with a status", 0)
  end
  local headers = {}
  for line in head:gmatch("(.-)\r\n") do
    local field, value = line:match("^([%w_-]+): ([^%c]*)$")
    if not field or headers[field:lower()] then
      error("the answer's header is malformed", 0)
    end
    headers[field:lower()] = value
  end
  return status, headers, body
end

-- ---- what comes of it

local passed_on = { "WWW-Authenticate", "Cache-Control", "Content-Type", "Retry-After" }

local function refuse(txn, status, headers, body)
  local reply = txn:reply({ status = status })
  for _, field in ipairs(passed_on) do
    if headers[field:lower()] then
      reply:add_header(field, headers[field:lower()])
    end
  end
  if txn.sf:method() ~= "HEAD" then
    reply:set_body(body)
  end
  txn:done(reply)
end

local function ask(txn)
  local socket = core.tcp()
  local fine, text = pcall(exchange, socket, question(params_of(txn)))
  socket:close()
  local status, headers, body
  if fine then
    fine, status, headers, body = pcall(parsed, text)
    text = status
  end
  if not fine then
    txn:set_var("txn.spnegate_trouble", tostring(text))
    return
  end
  if status == 200 and headers["variable-spnegate"] == "granted" then
    local user, audit = headers["variable-remote_user"], headers["variable-audit_id"]
    if user and user ~= "" and audit and headers["variable-auth_type"] then
      txn:set_var("txn.spnegate_user", user)
      txn:set_var("txn.spnegate_type", headers["variable-auth_type"])
      txn:set_var("txn.spnegate_audit", audit)
      if headers["www-authenticate"] then
        txn:set_var("txn.spnegate_reply", headers["www-authenticate"])
      end
      txn:set_var("txn.spnegate", "granted")
    end
  elseif status == 401 or status == 403 or status == 500 or status == 503 then
    refuse(txn, status, headers, body)
  end
end

core.register_action("spnegate", { "http-req" }, ask, 0)

-- ---- which path is it?

-- HAProxy passes a path on as it came, and what it means is for the backend to say. So that no
-- spelling of a protected path gets past the question, this reads it as leniently as any backend
-- might: decoded (also twice), without parameters, "\\", "//" and ".", and in lower case.
local function lenient(path, resolve)
  local segments = {}
  for _ = 1, 2 do
    path = path:gsub("%%(%x%x)", function(hex)
      return string.char(tonumber(hex, 16))
    end)
  end
  path = path:gsub("\\", "/"):lower()
  for segment in path:gmatch("[^/]+") do
    segment = segment:match("^[^;]*")
    if segment == ".." and resolve then
      segments[#segments] = nil
    elseif segment ~= "" and segment ~= "." then
      segments[#segments + 1] = segment
    end
  end
  return "/" .. table.concat(segments, "/")
end

core.register_converters("spnegate_path", function(path)
  return lenient(path, true)
end)

core.register_converters("spnegate_raw", function(path)
  return lenient(path, false)
end)
