-- Takes out of the request every header that could be mistaken for what spnegate says: programs see
-- the header X-Y as HTTP_X_Y, with any sign but a letter or digit made "_", so the spellings
-- X_Y, X.Y, x~y are all the same header to them.

local taken = {
  ["X-REMOTE-USER"] = true,
  ["REMOTE-USER"] = true,
  ["X-AUTH-TYPE"] = true,
  ["AUTH-TYPE"] = true,
  ["AUDIT-ID"] = true,
  ["NEGOTIATE-REPLY"] = true,
}

local forged = {}
for header in pairs(lighty.r.req_header) do
  local spelled = header:upper():gsub("[^%w]", "-")
  if taken[spelled] or spelled:find("^VARIABLE%-") or spelled:find("^SPNEGATE") then
    forged[#forged + 1] = header
  end
end
for _, header in ipairs(forged) do
  lighty.r.req_header[header] = nil
end
return 0
